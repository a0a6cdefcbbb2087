-- What a run came to, as one line of JSON; times in microseconds.
done = function(summary, latency, requests)
  local failed = summary.errors
  io.write(string.format(
    '{"requests":%d,"took_us":%d,"refused":%d,"broken":%d,"p50":%d,"p99":%d,"p999":%d}\n',
    summary.requests, summary.duration, failed.status, failed.connect + failed.read + failed.write + failed.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
