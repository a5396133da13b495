//! Connections of the token listener: their protocols, their bounds, their end.

#[cfg(test)] // so that clippy knows it as a test's
mod support;

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::{Request, Version, body::Bytes, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use support::{BOT, FORM, GATEWAY, OPENAI_KEY, Stand, encode, post};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// Longer than any bound that these tests set.
const LONG: Duration = Duration::from_secs(20);

fn impatient(config: &mut Value) {
    config["limits"] = json!({ "timeout": "200ms" });
}

#[tokio::test]
async fn an_exchange_goes_over_http_2_too() {
    let stand = Stand::start().await;
    let session = stand
        .connect(Some(&stand.identity(GATEWAY)))
        .await
        .expect("a session");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(session))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    for _ in 0..3 {
        let form = encode(&Stand::with_spiffe_id(BOT, "openai"));
        let request = Request::post("https://broker/token")
            .header(header::CONTENT_TYPE, FORM)
            .body(Full::new(Bytes::from(form)))
            .expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(
            (response.status().as_u16(), response.version()),
            (200, Version::HTTP_2)
        );
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(answer["access_token"], OPENAI_KEY);
    }
}

#[tokio::test]
async fn a_stranger_can_not_hold_a_connection() {
    let stand = Stand::start_with(impatient).await;
    let unlisted = stand.identity(BOT);
    for identity in [None, Some(&unlisted)] {
        let mut session = stand.connect(identity).await.expect("a session");
        let mut nothing = [0; 1];
        let ended = timeout(LONG, session.read(&mut nothing))
            .await
            .expect("an end");
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let stand = Stand::start_with(impatient).await;
    let mut stream = tokio::net::TcpStream::connect(stand.running.bound().token)
        .await
        .expect("a connection");
    let mut nothing = [0; 1];
    let ended = timeout(LONG, stream.read(&mut nothing))
        .await
        .expect("an end");
    assert!(matches!(ended, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let stand = Stand::start_with(impatient).await;
    let mut session = stand
        .connect(Some(&stand.identity(GATEWAY)))
        .await
        .expect("a session");
    let head = "POST /token HTTP/1.1\r\nhost: broker\r\ncontent-length: 100\r\n\
                content-type: application/x-www-form-urlencoded\r\n\r\ngrant_type=";
    session.write_all(head.as_bytes()).await.expect("written");
    let mut answer = vec![0; 12];
    timeout(LONG, session.read_exact(&mut answer))
        .await
        .expect("in time")
        .expect("an answer");
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 408");
}

#[tokio::test]
async fn more_exchanges_than_may_run_are_told_to_come_back() {
    let stand = Stand::start_with(|config| config["limits"] = json!({ "exchanges": 1 })).await;
    let token = stand.issuer.token("support-bot");
    let form = Stand::with_token(&token, "openai");
    let held = stand.issuer.hold().await;
    let slow = stand.exchange(&form);
    let others = async {
        stand.issuer.fetched().await;
        let busy = stand.exchange(&Stand::with_spiffe_id(BOT, "openai")).await;
        drop(held);
        busy
    };
    let (slow, busy) = tokio::join!(slow, others);
    assert_eq!((busy.status, slow.status), (503, 200));
    assert_eq!(busy.json["error"], "temporarily_unavailable");
    let free = stand.exchange(&Stand::with_spiffe_id(BOT, "openai")).await;
    assert_eq!(free.status, 200);
}

#[tokio::test]
async fn many_who_need_the_issuers_keys_at_once_cause_one_fetch() {
    let stand = Stand::start().await;
    let token = stand.issuer.token("support-bot");
    let form = Stand::with_token(&token, "openai");
    let held = stand.issuer.hold().await;
    let first = async {
        stand.issuer.fetched().await;
        drop(held);
    };
    let all = async {
        tokio::join!(
            stand.exchange(&form),
            stand.exchange(&form),
            stand.exchange(&form),
            stand.exchange(&form),
        )
    };
    let ((), (a, b, c, d)) = tokio::join!(first, all);
    assert_eq!([a.status, b.status, c.status, d.status], [200; 4]);
    assert_eq!(stand.issuer.fetches(), 1);
}

#[tokio::test]
async fn an_exchange_that_runs_is_finished_before_the_end() {
    let stand = Stand::start().await;
    let token = stand.issuer.token("support-bot");
    let session = stand
        .connect(Some(&stand.identity(GATEWAY)))
        .await
        .expect("a session");
    let Stand {
        dir: _dir,
        issuer,
        running,
        ..
    } = stand;
    let held = issuer.hold().await;
    let address = running.bound().token;
    let exchange = post(session, FORM, encode(&Stand::with_token(&token, "openai")));
    let end = async {
        issuer.fetched().await;
        let stop = running.stop();
        tokio::pin!(stop);
        // Told to stop while the exchange waits for the issuer's keys.
        assert!(
            timeout(Duration::from_millis(50), stop.as_mut())
                .await
                .is_err()
        );
        drop(held);
        stop.await;
    };
    let (answer, ()) = tokio::join!(exchange, end);
    assert_eq!(answer.expect("an answer").status, 200);
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}
