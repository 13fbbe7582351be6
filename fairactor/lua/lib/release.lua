-- Takes claims back from a runtime that has died or is leaving.

-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua

-- Returns what a tenant owes for a claim: how long its runtime has held it, less the estimate charged.
local function undercharge(mark)
  local _, since, _, charged = struct.unpack(MARK, mark)
  return shard.by_time and (shard.ms - since) / 1000 - charged
end

-- Returns a runtime's claims to the mailboxes, each task at its old place, unless it was to be canceled. With
-- `deliveries` > 0 a claim counts as a delivery, and a task with that many fails with `outcome`: it may be what kills
-- its runtimes. Returns the number of claims, the runtime's assigned tenants for `clamp_tags`, and a function that
-- writes.
local function release(runtime, deliveries, outcome)
  local claims, cancels = call('HGETALL', CLAIMS .. runtime), {}
  local ids, marks = {}, {}
  for i = 1, #claims, 2 do ids[#ids + 1], marks[#marks + 1] = claims[i], claims[i + 1] end
  for i, packed in ipairs(read_all('HMGET', CANCELS .. runtime, ids)) do cancels[ids[i]] = packed end
  local assigned_tenants = call('SMEMBERS', ASSIGNED .. runtime)
  load_tenants(assigned_tenants)
  load_watchers(ids)
  local delivered, found, lost = {}, {}, {}
  for i, record in ipairs(read_records(ids)) do
    load_tenants({ tenant_in(marks[i]) })
    if record then
      found[#found + 1] = { id = ids[i], name = tenant_in(marks[i]), record = record, owed = undercharge(marks[i]) }
    else -- somebody deleted it by hand: only its counts are left
      lost[#lost + 1] = marks[i]
    end
  end
  for _, mark in ipairs(lost) do
    local name = tenant_in(mark)
    load_counts({ name })
    count_end(name)
    add(name, priority_in(mark), -1)
  end
  for _, task in ipairs(found) do
    local id, name, record = task.id, task.name, task.record
    local _, count, priority, attempt, stamp = struct.unpack(HEADER, record)
    local history_line
    count_end(name, task.owed)
    if deliveries > 0 then
      -- A line of the history, as record.py writes it.
      history_line = string.format('\n[%d,%.3f,0,%s,"WorkerDied","the lease of its runtime ran out"]', attempt,
        shard.now / 1e6, cjson.encode(runtime))
      count = math.min(count + 1, 255)
      record = record:sub(1, 1) .. string.char(count) .. record:sub(3) .. history_line
    end
    if cancels[id] then
      load_counts({ name })
      add(name, priority, -1)
      cancel_task(id, name, record, cancels[id])
    elseif deliveries > 0 and count >= deliveries then
      load_counts({ name })
      add(name, priority, -1)
      local ms = record_ttl(id, DEAD_STATE, shard.failed_ttl)
      end_task(id, name, DEAD_STATE, ms, ended_record(record, DEAD_STATE, outcome))
    else
      enqueue(name, id, stamp, priority)
      if history_line then delivered[#delivered + 1] = { id, string.char(count), history_line } end
    end
  end
  reassigned, reassigned_tenants = runtime, {}
  return #ids, assigned_tenants, function()
    write_ends()
    for _, task in ipairs(delivered) do -- no longer claimed, so a repeat does not count twice
      call('SETRANGE', TASK .. task[1], 1, task[2])
      call('APPEND', TASK .. task[1], task[3])
    end
    write_all('HDEL', PROGRESS, ids)
  end
end

-- Deletes all that is stored about a runtime.
local function forget(runtime)
  call('DEL', CLAIMS .. runtime, CANCELS .. runtime, ASSIGNED .. runtime, STEAL .. runtime)
  call('ZREM', LEASES, runtime)
  call('HDEL', SESSIONS, runtime)
  call('HDEL', FLEET, runtime)
  call('HDEL', HOMES, runtime)
  call('SREM', IDLE, runtime)
  call('SREM', IDLE_HOMES, runtime)
  call('SREM', IDLE_PROCESSES, runtime)
end
