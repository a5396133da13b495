//! The allow lists of query parameters: a query in, what of it goes up out.

use std::borrow::Cow;

use crate::api::Api;

/// The part of `query` that may go up; borrowed where nothing has to be removed.
#[must_use]
pub fn allowed(api: Api, query: &str) -> Cow<'_, str> {
    let _ = (api, query);
    Cow::Borrowed("")
}
