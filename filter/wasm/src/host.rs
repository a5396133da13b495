//! Every host call there is: takes plain values, gives plain values, handles each status.
//!
//! The SDK's traits panic on a status that they don't expect, which traps the VM with all its
//! streams; the functions below are the SDK's free ones, called only where the host defines them.

use std::{
    num::NonZeroU32,
    time::{Duration, UNIX_EPOCH},
};

use almoner_core::{
    attributes::{Attributes, number},
    exchange::HeaderEdits,
    reply::Reply,
    reservation::{Store, StoreError, Stored, Swap, Version},
    units::{Timestamp, millis},
};
use proxy_wasm::{
    hostcalls,
    types::{BufferType, Bytes, LogLevel, MapType, MetricType, Status},
};

/// The time of the current callback.
pub(crate) fn now() -> Timestamp {
    let since = hostcalls::get_current_time()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .unwrap_or_default();
    Timestamp(millis(since))
}

/// Writes a line to Envoy's log.
pub(crate) fn log(level: LogLevel, line: &str) {
    // There is nobody left to tell where the log itself fails.
    let _ = hostcalls::log(level, line);
}

/// Reads a header map whole.
pub(crate) fn headers(map: MapType) -> Vec<(String, Bytes)> {
    hostcalls::get_map_bytes(map).unwrap_or_default()
}

/// Whether Envoy has received any of the request's body, passed on to us or not.
pub(crate) fn body_arrived() -> bool {
    // Headers and body together; the headers by the bytes of their names and values.
    let total = number(&EnvoyAttributes, &["request", "total_size"]).unwrap_or(0);
    let headers = headers(MapType::HttpRequestHeaders);
    let sizes = headers
        .iter()
        .map(|(name, value)| name.len().saturating_add(value.len()));
    usize::try_from(total).unwrap_or(usize::MAX) > sizes.fold(0, usize::saturating_add)
}

/// Applies edits to a header map. An error leaves it half edited: the request must not go on.
pub(crate) fn edit_headers(map: MapType, edits: &HeaderEdits) -> Result<(), Status> {
    for name in &edits.remove {
        hostcalls::remove_map_value(map, name)?;
    }
    for (name, value) in &edits.set {
        hostcalls::set_map_value(map, name, Some(value))?;
    }
    Ok(())
}

/// Sets one request header in place of all values that it has.
pub(crate) fn set_request_header(name: &str, value: &str) -> Result<(), Status> {
    hostcalls::set_map_value(MapType::HttpRequestHeaders, name, Some(value))
}

/// Empties a header map.
pub(crate) fn remove_all(map: MapType) -> Result<(), Status> {
    for (name, _) in headers(map) {
        hostcalls::remove_map_value(map, &name)?;
    }
    Ok(())
}

/// The whole of a buffer.
pub(crate) fn buffer(kind: BufferType) -> Bytes {
    hostcalls::get_buffer(kind, 0, usize::MAX)
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// Replaces the whole of a buffer.
pub(crate) fn replace_buffer(kind: BufferType, bytes: &[u8]) -> Result<(), Status> {
    hostcalls::set_buffer(kind, 0, usize::MAX, bytes)
}

/// Answers the request of the effective context.
pub(crate) fn reply(reply: &Reply) -> Result<(), Status> {
    let headers = reply
        .headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    hostcalls::send_http_response(u32::from(reply.status), headers, Some(&reply.body))
}

/// Lets the held request of the effective context go up.
pub(crate) fn resume_request() -> Result<(), Status> {
    hostcalls::resume_http_request()
}

/// Ends the effective context's stream on both sides.
pub(crate) fn reset_stream() -> Result<(), Status> {
    hostcalls::reset_http_response()
}

/// Makes another context the one that host calls are about. `Err` where it is gone.
pub(crate) fn as_context(id: u32) -> Result<(), Status> {
    hostcalls::set_effective_context(id)
}

/// Posts a form through a cluster; gives the token of the reply.
pub(crate) fn post_form(
    cluster: &str,
    authority: &str,
    path: &str,
    form: &str,
    timeout: Duration,
) -> Result<u32, Status> {
    let headers = vec![
        (":method", "POST"),
        (":path", path),
        (":authority", authority),
        ("content-type", "application/x-www-form-urlencoded"),
        ("accept", "application/json"),
    ];
    hostcalls::dispatch_http_call(cluster, headers, Some(form.as_bytes()), vec![], timeout)
}

/// The status of the reply to a call; `None` where none came.
pub(crate) fn call_status() -> Option<u16> {
    hostcalls::get_map_value(MapType::HttpCallResponseHeaders, ":status")
        .ok()??
        .parse()
        .ok()
}

/// Registers a queue whose readiness this root is told of.
pub(crate) fn register_queue(name: &str) -> Option<u32> {
    hostcalls::register_shared_queue(name).ok()
}

/// Has the root that registered the queue called.
pub(crate) fn ring(queue: u32) -> Result<(), Status> {
    hostcalls::enqueue_shared_queue(queue, Some(b"!"))
}

/// Empties a queue.
pub(crate) fn drain(queue: u32) {
    while matches!(hostcalls::dequeue_shared_queue(queue), Ok(Some(_))) {}
}

/// Defines a counter.
pub(crate) fn define_counter(name: &str) -> Option<u32> {
    hostcalls::define_metric(MetricType::Counter, name).ok()
}

/// Adds to a counter.
pub(crate) fn add(metric: u32, by: u64) {
    // A counter that does not exist counts nothing; `define_counter` has said so.
    let _ = hostcalls::increment_metric(metric, i64::try_from(by).unwrap_or(i64::MAX));
}

/// Has this root called that often.
pub(crate) fn tick_every(period: Duration) -> Result<(), Status> {
    hostcalls::set_tick_period(period)
}

/// The plugin's configuration.
pub(crate) fn configuration() -> Option<Bytes> {
    hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX)
        .ok()
        .flatten()
}

/// Sets filter state: `wasm.<name>`.
pub(crate) fn set_state(name: &str, value: &[u8]) -> Result<(), Status> {
    hostcalls::set_property(vec![name], Some(value))
}

/// Envoy's attributes of the effective context.
pub(crate) struct EnvoyAttributes;

impl Attributes for EnvoyAttributes {
    fn attribute(&self, path: &[&str]) -> Option<Vec<u8>> {
        hostcalls::get_property(path.to_vec()).ok().flatten()
    }
}

/// Shared data of this VM id: all workers' and, over reloads, all VMs'.
pub(crate) struct SharedData;

impl Store for SharedData {
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        match hostcalls::get_shared_data(key) {
            Ok((value, Some(version))) => {
                let version = NonZeroU32::new(version).map(Version).ok_or(StoreError)?;
                Ok(Some(Stored {
                    value: value.unwrap_or_default(),
                    version,
                }))
            }
            Ok((_, None)) => Ok(None),
            Err(_) => Err(StoreError),
        }
    }

    fn swap(&self, key: &str, value: &[u8], version: Version) -> Result<Swap, StoreError> {
        match hostcalls::set_shared_data(key, Some(value), Some(version.0.get())) {
            Ok(()) => Ok(Swap::Done),
            Err(Status::CasMismatch) => Ok(Swap::Conflict),
            Err(_) => Err(StoreError),
        }
    }
}

impl SharedData {
    /// Creates a key, whatever is there. Only for `on_configure`: nothing protects a creation.
    pub(crate) fn create(key: &str, value: &[u8]) -> Result<(), StoreError> {
        hostcalls::set_shared_data(key, Some(value), None).map_err(|_| StoreError)
    }
}
