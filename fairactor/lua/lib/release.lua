-- Taking claims back from a runtime that has died or is leaving.

-- Puts what `claims` holds (a hash: id, mark, ...) back into the mailboxes, each task at its old place. With
-- `deliveries` > 0 the claim counts as a delivery, and a task that has had that many is settled as failed instead: it
-- may be what kills its runtimes; `body` is its outcome. Returns a function that writes what is not in the queues.
local function release(claims, deliveries, body)
  local ids, marks = {}, {}
  for i = 1, #claims, 2 do ids[#ids + 1], marks[#marks + 1] = claims[i], claims[i + 1] end
  local delivered, dead, found, lost = {}, {}, {}, {}
  for i, record in ipairs(read_records(ids)) do
    local name = marks[i]:sub(6)
    meet({ name })
    if record then
      local _, count, priority, stamp = struct.unpack(HEADER, record)
      found[#found + 1] = { id = ids[i], record = record, count = count, priority = priority, stamp = stamp, name = name }
    else -- somebody deleted it by hand: what is left to do is to count it no more
      lost[#lost + 1] = marks[i]
    end
  end
  for _, mark in ipairs(lost) do
    local name = mark:sub(6)
    load_counts({ name })
    add_started(name, -1)
    add(name, mark:byte(5), -1)
  end
  for _, task in ipairs(found) do
    local name = task.name
    add_started(name, -1)
    if deliveries > 0 and task.count + 1 >= deliveries then
      load_counts({ name })
      add(name, task.priority, -1)
      add_ended(name, DEAD, shard.failed_ttl)
      task.record = ended_record(task.record, DEAD, body)
      task.watching = call('HGET', WATCHERS, task.id)
      dead[#dead + 1] = task
    else
      enqueue(name, task.id, task.stamp, task.priority)
      if deliveries > 0 then delivered[#delivered + 1], delivered[#delivered + 2] = task.id, task.count + 1 end
    end
  end
  return function()
    for i = 1, #delivered, 2 do call('SETRANGE', TASK .. delivered[i], 1, string.char(delivered[i + 1])) end
    write_all('HDEL', PROGRESS, ids)
    for _, task in ipairs(dead) do
      keep_record(task.id, task.record, shard.failed_ttl)
      if task.watching then tell_watchers(task.id, task.record, task.watching) end
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
