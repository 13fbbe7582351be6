-- Takes claims back from a runtime that has died or is leaving. They may be many, so a call takes back only some. The
-- runtime loses its lease with the first of them; those that are left wait for `tend`.

-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua

-- Returns what a tenant owes for a claim: how long its runtime has held it, less the estimate charged; or false. Nothing
-- is owed to a kind of runtimes that ends.
local function undercharge(mark)
  local _, since, _, charged = struct.unpack(MARK, mark)
  return shard.by_time and not shard.kind_goes and (shard.ms - since) / 1000 - charged
end

-- Why claims count as deliveries: the error and its message in the history.
local REASONS = {
  died = '"WorkerDied","the lease of its runtime ran out"',
  silent = '"LeaseLost","its runtime was silent for longer than its lease; its event loop was blocked, or its process '
    .. 'stopped"',
  crashed = '"WorkerDied","its runtime crashed while it ran this task, alone or beside others"',
}

-- Why a runtime has no lease, by its score in LEASES until its last claim is taken back.
local WHY = { 'died', 'silent', 'crashed', 'left' }
local SCORE = { died = 1, silent = 2, crashed = 3, left = 4 }

local SOME = 25 -- claims that one call takes back
local BYTES = 500000 -- of their records, by about one: those of tasks that end are read and written again
local SOME_NAMES = 50 -- of its tenants that one call takes from it

local given_up = {} -- the ids of the tasks that `release` gives up

-- Whether to give a task up. Only a death with nothing beside it proves that the task is what kills: others are
-- innocent until twice as many deliveries. With `most` = 1 it must not run again after any death.
local function is_given_up(count, mark, reason, most)
  local proved = reason ~= 'silent' and (most == 1 or mark:byte(26) == 1)
  return count >= (proved and most or math.min(2 * most, 255))
end

-- Returns a record with its deliveries, and a line at the end of its history.
local function record_with(id, count, history_line)
  local record = call('GET', TASK .. id)
  return record:sub(1, 1) .. string.char(count) .. record:sub(3) .. (history_line or '')
end

-- Returns the ids and the marks of some of a runtime's claims.
local function some_claims(runtime)
  local claims, ids, marks = call('HRANDFIELD', CLAIMS .. runtime, SOME, 'WITHVALUES'), {}, {}
  local measures, bytes = shard.largest * SOME > BYTES, 0
  for i = 1, #claims, 2 do
    if bytes >= BYTES then break end
    ids[#ids + 1], marks[#marks + 1] = claims[i], claims[i + 1]
    if measures then bytes = bytes + call('STRLEN', TASK .. claims[i]) end
  end
  return ids, marks
end

-- Deletes what is stored about a runtime but its claims and what belongs to them, and the tenants that are left.
local function end_lease(runtime, why, assigned, stolen)
  call('ZADD', LEASES, SCORE[why], runtime)
  for _, name in ipairs(assigned) do call('SREM', ASSIGNED_TO .. name, runtime) end
  for _, name in ipairs(stolen) do call('SREM', STOLEN_BY .. name, runtime) end
  write_all('SREM', ASSIGNED .. runtime, assigned)
  write_all('SREM', STEAL .. runtime, stolen)
  call('HDEL', HOMES, runtime)
  call('SREM', INDEXED, runtime)
  for kind in shard.kinds:gmatch('%d+') do call('SREM', kind == '0' and IDLE or KIND_IDLE .. kind, runtime) end
  if shard.old_senders then call('SREM', IDLE, runtime) end -- see turn.lua
  call('SREM', IDLE_HOMES, runtime)
  call('HDEL', IDLE_SLOTS, runtime)
end

local function forget(runtime)
  call('DEL', CLAIMS .. runtime, CANCELS .. runtime)
  call('ZREM', LEASES, runtime)
  call('HDEL', SESSIONS, runtime)
  call('HDEL', FLEET, runtime)
end

-- Returns why a runtime has no lease any more, if claims of it were taken back before.
local function why_ended(runtime)
  return WHY[tonumber(call('ZSCORE', LEASES, runtime))]
end

-- Ends a runtime's lease, and returns some of its claims to the mailboxes, each task at its old place, unless it was to
-- be canceled. Unless the runtime has 'left', a claim counts as a delivery: the task becomes a suspect, or fails with
-- `outcome` (see `is_given_up`). Returns the number of these claims, how many claims and tenants are left, some of the
-- runtime's assigned tenants for `clamp_tags`, and a function that writes.
local function release(runtime, why, most, outcome)
  local reason, cancels = why ~= 'left' and why, {}
  local ids, marks = some_claims(runtime)
  for i, packed in ipairs(read_all('HMGET', CANCELS .. runtime, ids)) do cancels[ids[i]] = packed end
  local assigned_tenants = call('SRANDMEMBER', ASSIGNED .. runtime, SOME_NAMES)
  local stolen = call('SRANDMEMBER', STEAL .. runtime, SOME_NAMES)
  local left = call('HLEN', CLAIMS .. runtime) - #ids + call('SCARD', ASSIGNED .. runtime) - #assigned_tenants
    + call('SCARD', STEAL .. runtime) - #stolen
  load_tenants(assigned_tenants)
  load_watchers(ids)
  local delivered, found, lost = {}, {}, {}
  for i, id in ipairs(ids) do
    local header = call('GETRANGE', TASK .. id, 0, lanes and 2400 or 600) -- records may be large
    load_tenants({ tenant_in(marks[i]) })
    if readable(header) then
      local mark = marks[i]
      local _, since = struct.unpack(MARK, mark)
      found[#found + 1] =
        { id = id, name = tenant_in(mark), header = header, owed = undercharge(mark), mark = mark, since = since }
    else -- somebody deleted it by hand: only its counts are left
      lost[#lost + 1] = marks[i]
    end
  end
  for _, mark in ipairs(lost) do
    local name = tenant_in(mark)
    load_counts({ name })
    count_end(name)
    if limits then limits.give_back(mark) end
    add(name, priority_in(mark), -1)
  end
  -- What was claimed last is the most likely cause, so its tenant comes last.
  if reason then table.sort(found, function(a, b) return a.since < b.since end) end
  for _, task in ipairs(found) do
    local id, name = task.id, task.name
    local _, count, priority, attempt, stamp = struct.unpack(HEADER, task.header)
    local history_line
    count_end(name, task.owed)
    if limits then limits.give_back(task.mark) end
    if reason then
      -- A line of the history, as record.py writes it.
      history_line = string.format('\n[%d,%.3f,0,%s,%s]', attempt, shard.now / 1e6, cjson.encode(runtime),
        REASONS[reason])
      count = math.min(count + 1, 255)
    end
    if cancels[id] then
      load_counts({ name })
      add(name, priority, -1)
      cancel_task(id, name, record_with(id, count, history_line), cancels[id])
    elseif reason and is_given_up(count, task.mark, reason, most) then
      load_counts({ name })
      add(name, priority, -1)
      local ms = record_ttl(id, DEAD_STATE, shard.failed_ttl)
      local record = record_with(id, count, history_line)
      end_task(id, name, DEAD_STATE, ms, ended_record(record, DEAD_STATE, outcome))
      given_up[#given_up + 1] = id
    else
      enqueue(name, id, stamp, priority, count, task.header)
      if history_line then delivered[#delivered + 1] = { id, string.char(count), history_line } end
    end
  end
  reassigned, reassigned_tenants = runtime, {}
  note_home(runtime, false)
  return #ids, left, assigned_tenants, function()
    end_lease(runtime, why, assigned_tenants, stolen)
    write_ends()
    for _, task in ipairs(delivered) do -- no longer claimed, so a repeat does not count twice
      call('SETRANGE', TASK .. task[1], 1, task[2])
      call('APPEND', TASK .. task[1], task[3])
    end
    write_all('HDEL', PROGRESS, ids)
    write_all('HDEL', CLAIMS .. runtime, ids)
    write_all('HDEL', CANCELS .. runtime, ids)
    if left == 0 then forget(runtime) end
  end
end
