-- The end of a task, whoever brings it about: its record, its counts, its key, and those who wait for it.

-- @include lib/admit.lua

local watched, keyed = {}, {} -- task -> who waits for it, its key: of those that `load_watchers` was asked about

-- Reads what goes with the end of those tasks.
local function load_watchers(ids)
  if #ids == 0 or call('EXISTS', WATCHERS, KEYED) == 0 then return end
  local watchers, keys = read_all('HMGET', WATCHERS, ids), read_all('HMGET', KEYED, ids)
  for i, id in ipairs(ids) do watched[id], keyed[id] = watchers[i], keys[i] end
end

-- The same record in another state: the header stays, the outcome comes before what the body was.
local function ended_record(record, state, outcome)
  local _, deliveries, priority, attempt, stamp, tenant, body = struct.unpack(HEADER, record)
  local header = struct.pack(HEADER, state, deliveries, priority, attempt, stamp, #tenant, tenant)
  return header .. outcome .. '\n' .. record:sub(body)
end

-- How long the window of a task's key is, in ms, and the name of the key.
local function unpack_key(packed) return (struct.unpack('>d', packed)), packed:sub(9) end

local FETCH = 60000 -- ms: who waits for an outcome, and was cut off when it was told, asks for it within them

-- For how long to keep the record of a task that ends: as was asked, while its key stands for it, and until those who
-- wait for it have it.
local function record_ttl(id, state, ms)
  if state == DONE and keyed[id] then ms = math.max(ms, (unpack_key(keyed[id]))) end
  if watched[id] then ms = math.max(ms, FETCH) end
  return ms
end

-- What is to be written, in lists beside each other.
local stored_ids, records, ttls, dropped_records, to_notify, freed_keys, dead_letters = {}, {}, {}, {}, {}, {}, {}

-- Lists a dead letter. A microsecond apart, so that a list of them can be read in pages.
local function list_dead_letter(id, ms)
  dead_letters[#dead_letters + 1], dead_letters[#dead_letters + 2] =
    integer(shard.now + ms * 1000 + #dead_letters / 2), id
end

-- Ends a task. The record is needed where it is kept, ms > 0. `extra` is what its worker has said to plugins.
local function end_task(id, name, state, ms, record, extra)
  add_ended(name, state, ms)
  -- @hook ended
  if ms > 0 then
    local n = #stored_ids + 1
    stored_ids[n], records[n], ttls[n] = id, record, integer(ms)
    if state == DEAD_STATE then list_dead_letter(id, ms) end
  else
    dropped_records[#dropped_records + 1] = TASK .. id
  end
  if watched[id] then to_notify[#to_notify + 1] = { id, record } end
  if keyed[id] then freed_keys[#freed_keys + 1] = { id, state } end
end

-- A cancellation, as CANCELS keeps it while the task runs: for how many ms to keep the record, and the outcome.
local function pack_cancel(ms, outcome) return struct.pack('>d', ms) .. outcome end

-- Ends a task by a cancellation.
local function cancel_task(id, name, record, packed)
  local ms = record_ttl(id, CANCELED_STATE, (struct.unpack('>d', packed)))
  end_task(id, name, CANCELED_STATE, ms, ended_record(record, CANCELED_STATE, packed:sub(9)))
end

-- Ends a task that a plugin holds back by a cancellation; returns whether it was held back.
local function cancel_held(id, packed)
  local record = held_record(id)
  if not record then return false end
  local name = tenant_of(record)
  load_counts({ name })
  load_tenants({ name })
  add(name, DEFERRED, -1)
  if newly_held[id] then
    newly_held[id] = nil
  else
    load_watchers({ id })
    release_hold(id)
  end
  cancel_task(id, name, record, packed)
  return true
end

-- What plugins make of all that has ended in this script: they may let go what they hold back, or end it.
local function run_ends_hook()
  -- @hook ends
end

-- A key goes with its task, or stands for the rest of its window: of a task that has finished only.
local function free_key(id, state)
  local window, key = unpack_key(keyed[id])
  if state == DONE and window > 0 then
    call('PEXPIRE', KEY .. key, integer(window))
  else
    call('DEL', KEY .. key)
  end
  call('HDEL', KEYED, id)
end

-- Tells those who wait for the outcome of a task. `watching` is the task's field of WATCHERS.
local function notify_watchers(id, record, watching)
  local message = 'o' .. struct.pack('>Hc0', #id, id) .. record
  for _, runtime in ipairs(cmsgpack.unpack(watching)) do
    call('PUBLISH', INBOX .. runtime, message)
  end
  call('HDEL', WATCHERS, id)
end

-- The list of dead letters cleans itself: for each that comes, two whose records have expired may go.
local function write_dead_letters()
  if #dead_letters == 0 then return end
  local old = call('ZRANGEBYSCORE', DEAD, '-inf', integer(shard.now), 'LIMIT', 0, #dead_letters)
  write_all('ZREM', DEAD, old)
  write_all('ZADD', DEAD, dead_letters)
end

-- Writes it all, and the mailboxes. What plugins make of an end comes first, and then what they let go: where a script
-- breaks off, the task has not ended yet, and does so again.
local function write_ends()
  write_these(later)
  write_queues()
  for i = #stored_ids, 1, -1 do call('SET', TASK .. stored_ids[i], records[i], 'PX', ttls[i]) end -- what has brought it about is last
  call_all('DEL', dropped_records)
  write_dead_letters()
  for _, task in ipairs(freed_keys) do free_key(task[1], task[2]) end
  for _, task in ipairs(to_notify) do notify_watchers(task[1], task[2], watched[task[1]]) end
  write_these(last)
end
