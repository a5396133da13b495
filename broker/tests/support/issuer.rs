//! An issuer of tokens: signs them, and serves its keys over HTTPS on loopback as it is told to.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http_body_util::Full;
use hyper::{Response, body::Bytes, service::service_fn};
use hyper_util::rt::TokioIo;
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
        RsaPublicKeyComponents,
    },
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring as provider,
        pki_types::{PrivatePkcs8KeyDer, pem::PemObject},
    },
};

use super::pki::{self, Authority};

pub(crate) struct Issuer {
    address: SocketAddr,
    /// Closed while no answer shall be given.
    gate: Arc<Semaphore>,
    shown: Arc<Mutex<Shown>>,
    fetches: Arc<AtomicUsize>,
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
}

/// What the address of the keys answers.
pub(crate) struct Shown {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Issuer {
    /// Starts to serve its keys.
    pub(crate) async fn start(authority: &Authority) -> Self {
        let random = SystemRandom::new();
        let ec =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random)
            .expect("a key");
        let rsa = include_bytes!("../fixtures/issuer-rsa.pem");
        let rsa = PrivatePkcs8KeyDer::from_pem_slice(rsa).expect("PEM");
        let rsa = RsaKeyPair::from_pkcs8(rsa.secret_pkcs8_der()).expect("a key");

        let shown = Arc::new(Mutex::new(Shown {
            status: 200,
            body: Vec::new(),
        }));
        let fetches = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Semaphore::new(1));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let answers = Answers {
            shown: Arc::clone(&shown),
            fetches: Arc::clone(&fetches),
            gate: Arc::clone(&gate),
        };
        tokio::spawn(serve(listener, acceptor(authority), answers));
        let issuer = Self {
            address,
            gate,
            shown,
            fetches,
            ec,
            rsa,
        };
        issuer.show(200, issuer.jwks().to_string());
        issuer
    }

    /// Where its keys are.
    pub(crate) fn uri(&self) -> String {
        format!("https://localhost:{}/keys", self.address.port())
    }

    /// Changes what that address answers.
    pub(crate) fn show(&self, status: u16, body: impl Into<Vec<u8>>) {
        *self.shown.lock().expect("unpoisoned") = Shown {
            status,
            body: body.into(),
        };
    }

    /// Gives no answer until what this returns is dropped.
    pub(crate) async fn hold(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.gate).acquire_owned().await.expect("open")
    }

    /// Waits for a fetch of its keys to begin.
    pub(crate) async fn fetched(&self) {
        while self.fetches() == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// How often its keys were fetched.
    pub(crate) fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    /// Its keys.
    pub(crate) fn jwks(&self) -> Value {
        let (x, y) = self.ec.public_key().as_ref()[1..].split_at(32);
        let RsaPublicKeyComponents { n, e } =
            RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig", "alg": "ES256",
              "x": encode(x), "y": encode(y) },
            { "kty": "RSA", "kid": "rsa", "use": "sig",
              "n": encode(&n), "e": encode(&e) },
            { "kty": "RSA", "kid": "for-encryption", "use": "enc",
              "n": encode(&n), "e": encode(&e) },
            { "kty": "AKP", "kid": "of-the-future", "pub": "AA" },
        ]})
    }

    /// A good token of this subject.
    pub(crate) fn token(&self, sub: &str) -> String {
        self.sign(
            &json!({ "alg": "ES256", "kid": "ec", "typ": "JWT" }),
            &claims(sub),
        )
    }

    /// A token with this header and these claims, signed as the header says.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!(
            "{}.{}",
            encode(header.to_string()),
            encode(claims.to_string())
        );
        let signature = match header["alg"].as_str().unwrap_or_default() {
            "ES256" => self
                .ec
                .sign(&SystemRandom::new(), message.as_bytes())
                .expect("signed")
                .as_ref()
                .to_vec(),
            "RS256" => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                self.rsa
                    .sign(
                        &RSA_PKCS1_SHA256,
                        &SystemRandom::new(),
                        message.as_bytes(),
                        &mut signature,
                    )
                    .expect("signed");
                signature
            }
            // The attack: the public key, as it is published, as the secret of an HMAC.
            "HS256" => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
                let key = hmac::Key::new(hmac::HMAC_SHA256, &public.n);
                hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
            }
            _ => Vec::new(),
        };
        format!("{message}.{}", encode(signature))
    }
}

/// The claims of a good token.
pub(crate) fn claims(sub: &str) -> Value {
    json!({ "iss": "https://issuer.example", "sub": sub, "aud": ["other", "llm"], "exp": now().saturating_add(300),
            "nbf": now() })
}

/// Unix seconds.
#[expect(
    clippy::disallowed_methods,
    reason = "tokens of the tests are judged by the real clock"
)]
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_secs()
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn acceptor(authority: &Authority) -> TlsAcceptor {
    let server = authority.server();
    let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![pki::certificate(&server.certificate_pem)],
            pki::key(&server.key_pem),
        )
        .expect("an identity");
    TlsAcceptor::from(Arc::new(config))
}

#[derive(Clone)]
struct Answers {
    shown: Arc<Mutex<Shown>>,
    fetches: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Answers {
    async fn give(self) -> Result<Response<Full<Bytes>>, hyper::http::Error> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let _open = self.gate.acquire().await;
        let shown = self.shown.lock().expect("unpoisoned");
        Response::builder()
            .status(shown.status)
            .header("location", "/keys")
            .body(Full::new(Bytes::from(shown.body.clone())))
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, answers: Answers) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, answers) = (acceptor.clone(), answers.clone());
        tokio::spawn(async move {
            let Ok(session) = acceptor.accept(stream).await else {
                return;
            };
            let answer = service_fn(|_| answers.clone().give());
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(session), answer)
                .await;
        });
    }
}
