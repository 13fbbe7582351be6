-- Returns where live tasks stand, which is their state: nothing else records it. A suspect is queued, too.

-- @include lib/base.lua

-- Returns the lane in whose mailbox a task stands, or nil.
local function lane_with(name, id)
  if call('ZSCORE', QUEUE .. name, id) then return '' end
  for _, lane in ipairs(shard.lanes and call('ZRANGE', LANES_OF .. name, 0, -1) or {}) do
    if call('ZSCORE', mailbox(name, lane), id) then return lane end
  end
end

-- Returns the state of each task, 'missing' if it has no record, the runtimes of those that have started, and the lanes
-- of those in mailboxes.
local function locate(ids, records)
  local states, runtimes, others, indexes, lanes_of = {}, {}, {}, {}, {}
  for i, id in ipairs(ids) do
    local record = records[i]
    local name = record and tenant_of(record)
    if not record then
      states[i] = 'missing'
    elseif record:sub(1, 1) ~= LIVE then
      states[i] = 'settled'
    else
      lanes_of[i] = lane_with(name, id)
      if lanes_of[i] or call('ZSCORE', SUSPECTS .. name, id) then
        states[i] = 'queued'
      elseif call('ZSCORE', DELAYED .. name, id) then
        states[i] = 'scheduled'
      else
        states[i] = 'deferred'
        others[#others + 1], indexes[#indexes + 1] = id, i
      end
    end
  end
  for _, runtime in ipairs(#others > 0 and call('ZRANGE', LEASES, 0, -1) or {}) do
    for j, mark in ipairs(read_all('HMGET', CLAIMS .. runtime, others)) do
      if mark then states[indexes[j]], runtimes[indexes[j]] = 'started', runtime end
    end
  end
  return states, runtimes, lanes_of
end
