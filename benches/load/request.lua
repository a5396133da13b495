-- Loads one endpoint. Arguments: the body, and the key. Prints what was measured as one JSON line.

local body, key

function init(arguments)
  body, key = arguments[1], arguments[2]
  wrk.method = "POST"
  wrk.body = body
  wrk.headers["content-type"] = "application/json"
  wrk.headers["authorization"] = "Bearer " .. key
  wrk.headers["user-agent"] = "OpenAI/Python 3.52.0"
  wrk.headers["accept"] = "application/json"
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
