-- Taking claims back from a runtime that has died or is leaving.

-- Puts `ids` back into their mailboxes, each at its old place. With `deliveries` > 0 the claim counts as a
-- delivery, and a task that has had that many is settled as failed instead: it may be what kills its runtimes.
-- `body` is the outcome of such a task. Returns a function that writes.
local function release(ids, deliveries, body)
  local records, queues, delivered, dead = read_records(ids), {}, {}, {}
  local names = {}
  for i, id in ipairs(ids) do
    if records[i] then names[#names + 1] = select(5, struct.unpack(HEADER, records[i])) end
  end
  load_tenants(names)
  for i, id in ipairs(ids) do
    local record = records[i]
    if record then
      local _, count, priority, stamp, name = struct.unpack(HEADER, record)
      local tenant = tenants[name]
      add(tenant, STARTED, -1)
      if deliveries > 0 and count + 1 >= deliveries then
        dead[#dead + 1] = { id = id, record = ended_record(record, DEAD, body), watching = call('HGET', WATCHERS, id) }
        add_ended(tenant, DEAD, shard.failed_ttl)
      else
        local queue = queues[name] or {}
        queue[#queue + 1], queue[#queue + 2] = place(stamp, priority), id
        queues[name] = queue
        add_queued(tenant, priority, 1)
        if deliveries > 0 then delivered[#delivered + 1], delivered[#delivered + 2] = id, count + 1 end
      end
    end
  end
  return function()
    for i = 1, #delivered, 2 do call('SETRANGE', TASK .. delivered[i], 1, string.char(delivered[i + 1])) end
    if #ids > 0 then write_all('HDEL', PROGRESS, ids) end
    for name, queue in pairs(queues) do write_all('ZADD', QUEUE .. name, queue) end
    for _, entry in ipairs(dead) do
      keep_record(entry.id, entry.record, shard.failed_ttl)
      if entry.watching then tell_watchers(entry.id, entry.record, entry.watching) end
    end
  end
end

-- Forgets a runtime.
local function forget(runtime)
  call('DEL', CLAIMS .. runtime)
  call('ZREM', LEASES, runtime)
  call('HDEL', SESSIONS, runtime)
  call('HDEL', FLEET, runtime)
  call('SREM', IDLE, runtime)
end
