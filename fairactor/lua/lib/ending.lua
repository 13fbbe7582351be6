-- Ends tasks, for whatever reason: record, counts, key, and the runtimes that wait.

-- @include lib/admit.lua
-- @include lib/ended_tasks.lua

local watched, keyed = {}, {} -- task -> its watchers, and its key, once loaded
local followers = {} -- task with a key -> the task that runs once after it (replace.lua)
local may_end = {} -- task -> whether it is one of those that may end

-- Loads the watchers and keys of tasks that may end.
local function load_watchers(ids)
  if #ids == 0 or call('EXISTS', WATCHERS, KEYED) == 0 then return end
  local watchers, keys = read_all('HMGET', WATCHERS, ids), read_all('HMGET', KEYED, ids)
  local with_key = {}
  for i, id in ipairs(ids) do
    watched[id], keyed[id], may_end[id] = watchers[i], keys[i], true
    if keys[i] then with_key[#with_key + 1] = id end
  end
  for i, follower in ipairs(read_all('HMGET', AGAIN, with_key)) do
    followers[with_key[i]] = follower or followers[with_key[i]] -- which may be new
  end
end

-- Returns the record in another state: the same header, then the outcome, then the old body.
local function ended_record(record, state, outcome)
  local _, deliveries, priority, attempt, stamp, tenant, body = struct.unpack(HEADER, record)
  local header = struct.pack(HEADER, state, deliveries, priority, attempt, stamp, #tenant, tenant)
  return header .. outcome .. '\n' .. record:sub(body)
end

-- Returns the window of a task's key, in ms, and the key.
local function unpack_key(packed)
  if #packed < 9 then return 0, '' end -- somebody has damaged it
  return (struct.unpack('>d', packed)), packed:sub(9)
end

local FETCH = 60000 -- ms within which a runtime that missed the message asks for the outcome

-- Returns how long to keep a record: as requested, and at least while its key stands for it and until its watchers have
-- the outcome.
local function record_ttl(id, state, ms)
  if state == DONE and keyed[id] then ms = math.max(ms, (unpack_key(keyed[id]))) end
  if watched[id] then ms = math.max(ms, FETCH) end
  return ms
end

-- What `write_ends` writes, in parallel lists.
local stored, records, ttls, dropped, to_notify, freed, dead_letters = {}, {}, {}, {}, {}, {}, {}

-- Lists a dead letter. Scores are a microsecond apart, so that it can be read in pages. Without its record it is not
-- put into the indexes.
local function list_dead_letter(id, ms, record)
  local score = integer(shard.now + ms * 1000 + #dead_letters / 2)
  dead_letters[#dead_letters + 1], dead_letters[#dead_letters + 2] = score, id
  if record then index_letter(id, score, record) end
end

-- Ends a task. The record is needed only if it is kept, `ms` > 0. `extra` is what the handler attached for plugins.
local function end_task(id, name, state, ms, record, extra)
  add_ended(name, state, ms)
  -- @hook ended
  if ms > 0 then
    local n = #stored + 1
    stored[n], records[n], ttls[n] = id, record, integer(ms)
    if state == DEAD_STATE then list_dead_letter(id, ms, record) else note_ended(id, name, ms) end
  else
    dropped[#dropped + 1] = TASK .. id
  end
  if watched[id] then to_notify[#to_notify + 1] = { id, record } end
  if keyed[id] then
    local follower = followers[id]
    -- A follower that may end does end in this script: it cannot have started.
    freed[#freed + 1] = { id, state, follower and not may_end[follower] and admit(follower) and follower }
  end
end

-- Packs a cancellation as CANCELS keeps it: ms to keep the record, and the outcome.
local function pack_cancel(ms, outcome) return struct.pack('>d', ms) .. outcome end

local function cancel_task(id, name, record, packed)
  local ms = record_ttl(id, CANCELED_STATE, (struct.unpack('>d', packed)))
  end_task(id, name, CANCELED_STATE, ms, ended_record(record, CANCELED_STATE, packed:sub(9)))
end

-- Cancels a task that a plugin holds back. Returns whether it was held.
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

-- Runs the `ends` hooks, which may admit or cancel held tasks.
local function run_ends_hook()
  -- @hook ends
end

-- Deletes a task's key, or keeps it for the rest of its window if the task has finished, or gives it to the task that
-- follows.
local function free_key(id, state, follower)
  local window, key = unpack_key(keyed[id])
  local owner = call('GET', KEY .. key)
  if follower then
    call('SET', KEY .. key, follower)
  elseif owner and owner ~= id then -- it was to follow the owner
    if call('HGET', AGAIN, owner) == id then call('HDEL', AGAIN, owner) end
  elseif state == DONE and window > 0 then
    call('PEXPIRE', KEY .. key, integer(window))
  else
    call('DEL', KEY .. key)
  end
  call('HDEL', KEYED, id)
  if followers[id] then call('HDEL', AGAIN, id) end
end

local LARGE_OUTCOME = 16384 -- bytes: the server cuts off a runtime that does not receive its messages fast enough

-- Sends an outcome to those that wait. `watching` is the task's field of WATCHERS. A large record stays away: they ask for
-- it (watch.lua). A release that does not know this takes it for a message that was damaged, and asks as well.
local function notify_watchers(id, record, watching)
  if #record > LARGE_OUTCOME then record = '' end
  local message = 'o' .. struct.pack('>Hc0', #id, id) .. record
  local readable_list, runtimes = pcall(cmsgpack.unpack, watching)
  for _, runtime in ipairs(readable_list and type(runtimes) == 'table' and runtimes or {}) do
    if type(runtime) == 'string' then call('PUBLISH', INBOX .. runtime, message) end
  end
  call('HDEL', WATCHERS, id)
end

-- The list of dead letters cleans itself: each new one removes up to two that have expired.
local function write_dead_letters()
  if #dead_letters == 0 then return end
  local old = call('ZRANGEBYSCORE', DEAD, '-inf', integer(shard.now), 'LIMIT', 0, #dead_letters)
  change_letters('ZREM', old)
  change_letters('ZADD', dead_letters)
  write_letter_indexes()
end

-- Writes it all, and the mailboxes. What plugins do comes first: if the script fails there, the task has not ended yet.
local function write_ends()
  write_these(later)
  write_queues()
  for i = #stored, 1, -1 do call('SET', TASK .. stored[i], records[i], 'PX', ttls[i]) end -- the cause comes last
  call_all('DEL', dropped)
  write_dead_letters()
  write_ended_tasks()
  for _, task in ipairs(freed) do free_key(unpack(task, 1, 3)) end
  for _, task in ipairs(to_notify) do notify_watchers(task[1], task[2], watched[task[1]]) end
  write_these(last)
end
