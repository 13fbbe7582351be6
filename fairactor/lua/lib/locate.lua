-- Returns where live tasks stand, which is their state: nothing else records it. A suspect is queued, too.

-- @include lib/base.lua

-- Returns the state of each task, 'missing' if it has no record, and the runtimes of those that have started.
local function locate(ids, records)
  local states, runtimes, others, indexes = {}, {}, {}, {}
  for i, id in ipairs(ids) do
    local record = records[i]
    local name = record and tenant_of(record)
    if not record then
      states[i] = 'missing'
    elseif record:sub(1, 1) ~= LIVE then
      states[i] = 'settled'
    elseif call('ZSCORE', QUEUE .. name, id) or call('ZSCORE', SUSPECTS .. name, id) then
      states[i] = 'queued'
    elseif call('ZSCORE', DELAYED .. name, id) then
      states[i] = 'scheduled'
    else
      states[i] = 'deferred'
      others[#others + 1], indexes[#indexes + 1] = id, i
    end
  end
  for _, runtime in ipairs(#others > 0 and call('ZRANGE', LEASES, 0, -1) or {}) do
    for j, mark in ipairs(read_all('HMGET', CLAIMS .. runtime, others)) do
      if mark then states[indexes[j]], runtimes[indexes[j]] = 'started', runtime end
    end
  end
  return states, runtimes
end
