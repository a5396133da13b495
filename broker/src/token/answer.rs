//! The answers of the token endpoint, as HTTP: a credential, or an error.

use almoner_core::subject::SubjectId;
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde::Serialize;

use crate::credential::{Kind, StoredCredential};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// The `issued_token_type` of a key that is no access token: RFC 8693, section 3 has none.
const API_KEY: &str = "urn:almoner:params:oauth:token-type:api-key";

/// A credential on its way to an Envoy.
pub(super) struct Issued<'a> {
    pub(super) subject: SubjectId,
    pub(super) credential: &'a StoredCredential,
    /// Seconds.
    pub(super) expires_in: u64,
}

/// A finished answer.
pub(crate) struct Answer {
    status: StatusCode,
    body: Vec<u8>,
}

/// RFC 8693, section 2.2.1; `subject` and `credential_id` are ours: whom it was issued for, and
/// what may be logged of it.
#[derive(Serialize)]
struct Success<'a> {
    access_token: &'a str,
    issued_token_type: &'static str,
    token_type: &'static str,
    expires_in: u64,
    subject: &'a str,
    credential_id: &'a str,
}

#[derive(Serialize)]
struct Error {
    error: &'static str,
    error_description: &'static str,
}

impl Issued<'_> {
    pub(super) fn answer(&self) -> Answer {
        let (issued_token_type, token_type) = match self.credential.kind {
            Kind::Bearer => (ACCESS_TOKEN, "Bearer"),
            Kind::Header => (API_KEY, "N_A"),
        };
        Answer::json(
            StatusCode::OK,
            &Success {
                access_token: self.credential.secret.expose(),
                issued_token_type,
                token_type,
                expires_in: self.expires_in,
                subject: self.subject.as_str(),
                credential_id: self.credential.id.as_str(),
            },
        )
    }
}

impl Answer {
    pub(super) fn error(
        status: StatusCode,
        error: &'static str,
        error_description: &'static str,
    ) -> Self {
        Self::json(
            status,
            &Error {
                error,
                error_description,
            },
        )
    }

    fn json(status: StatusCode, body: &impl Serialize) -> Self {
        serde_json::to_vec(body).map_or_else(
            |_| Self {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                body: Vec::new(),
            },
            |body| Self { status, body },
        )
    }

    /// As HTTP. Never cached (RFC 6749, section 5.1).
    pub(crate) fn into_response(self) -> Response<Body> {
        let retry = matches!(self.status.as_u16(), 429 | 503);
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if retry {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
