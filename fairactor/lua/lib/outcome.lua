-- Settled records, and the runtimes that wait for them.

-- Keeps a settled record for its time to live, or drops it where that is 0.
local function keep_record(id, record, ttl_ms)
  if ttl_ms > 0 then
    call('SET', TASK .. id, record, 'PX', integer(ttl_ms))
  else
    call('DEL', TASK .. id)
  end
end

-- Tells those who wait for the outcome of a task. `watching` is the task's field of WATCHERS.
local function tell_watchers(id, record, watching)
  local message = 'o' .. struct.pack('>Hc0', #id, id) .. record
  for _, runtime in ipairs(cmsgpack.unpack(watching)) do
    call('PUBLISH', INBOX .. runtime, message)
  end
  call('HDEL', WATCHERS, id)
end

-- The same record in another state, with another body: the header keeps the tenant, priority and stamp.
local function ended_record(record, state, body)
  local _, deliveries, priority, stamp, tenant = struct.unpack(HEADER, record)
  return struct.pack(HEADER, state, deliveries, priority, stamp, #tenant, tenant) .. body
end
