-- Decides what becomes of tasks that wait for others. It starts from lists: `mine.sent`, accepted tasks and what they
-- wait for; `mine.ended`, tasks that have ended; `mine.gates`, gates that have; `mine.messages` of other shards;
-- `mine.rest`, what earlier scripts left to do; `mine.grown`, a task and others that it is to wait for as well.
--
-- What a task waits for is kept with its hold. Those that wait for a task are in its field of 'of:t', those that wait
-- for the gate of a run in its field of 'of:g'; if there are many, in a list too. 'got:' and a task holds the results
-- for it.
--
-- An end is F finished, X failed, or C canceled; it is also X if the task was canceled because another failed. An end
-- changes nothing the second time, since a task remembers the outcome of each parent. The tasks that wait are stored
-- before it and deleted after it, so if a script fails halfway, a repeat of the end completes it.

-- @takes call, shard, integer, read_all, write_all, call_all, HEADER, CANCELED_STATE, DEAD_STATE from lib/base.lua
-- @takes NONE from lib/policy.lua
-- @takes later, last from lib/plugins.lua
-- @takes keep_of from lib/admit.lua

if mine.sent or mine.ended or mine.gates or mine.messages or mine.rest or mine.grown then
  local SOME = 500 -- tasks notified in one script; take.lua notifies the rest
  local HERE, NOTIFIES = 65535, 65534
  local WAITING = '>Bc0c1dI4I4I4Bc0' -- rule, gate, keep, how many are F, X and C, token; then a letter for each parent
  local ENTRY = '>HBI4Hc0' -- shard, whether it wants the result, place, task
  local FIELD, FIELD_SIZE, MOST = '>HB', 3, 100 -- number of entries, MOST at most; whether a list follows
  local CHUNK, CHUNKS = 50, 10 -- entries in an element of a list, elements read at once
  local MESSAGE = '>Hc1c1BI4Hc0Hc0Hc0' -- to, kind, letter, wants, place, task or run, parent, root; then the result
  local REST = '>c1Hc0' -- letter, root; then the result
  local OPEN, CLOSED, NEVER = 'o', 'c', 'n'
  local PENDING, PENDING_BYTE = '?', 63
  local REMEMBERED = 3600000 -- ms for which the end of a gate is remembered
  local EARLY = 300000 -- ms that an end is kept for a task not sent yet, as long as a gate may be closed

  local budget = SOME
  local entries, outbox, rest, deleted_keys, notified = {}, {}, {}, {}, {} -- what to write, and to delete
  local changed_fields, done_rest, gates_ended = { t = {}, g = {} }, {}, {}
  local remote, work_is_left = false, false

  local function send_message(to, kind, letter, wants, index, id, parent, root, result)
    outbox[#outbox + 1] = struct.pack(MESSAGE, to, kind, letter, wants, index, #id, id, #parent, parent, #root, root)
      .. (result or '')
  end

  local function add_entry(kind, id_of_it, shard_of_it, wants, index, id)
    local list = entries[kind .. id_of_it]
    if not list then
      list = {}
      entries[kind .. id_of_it] = list
    end
    list[#list + 1] = struct.pack(ENTRY, shard_of_it, wants, index, #id, id)
    remote = remote or shard_of_it ~= HERE
  end

  -- Writes added entries to fields while these are short. Returns the lists that take the others.
  local function keep_entries(kind)
    local ids, lists = {}, {}
    for name in pairs(entries) do
      if name:sub(1, 1) == kind then ids[#ids + 1] = name:sub(2) end
    end
    for i, field in ipairs(read_all('HMGET', OWN .. 'of:' .. kind, ids)) do
      local added, count, has_list = entries[kind .. ids[i]], 0, 0
      if field then count, has_list = struct.unpack(FIELD, field) end
      local before = field and field:sub(FIELD_SIZE + 1) or ''
      if has_list == 0 and count + #added <= MOST then
        field = struct.pack(FIELD, count + #added, 0) .. before .. table.concat(added)
      else
        field = struct.pack(FIELD, count, 1) .. before
        local chunks = {}
        for j = 1, #added, CHUNK do
          chunks[#chunks + 1] = table.concat(added, '', j, math.min(j + CHUNK - 1, #added))
        end
        lists[OWN .. 'of:' .. kind .. ':' .. ids[i]] = chunks
      end
      changed_fields[kind][2 * i - 1], changed_fields[kind][2 * i] = ids[i], field
    end
    return lists
  end

  -- Returns the result in the record of a finished task, as JSON.
  local function result_in(record)
    local line = record and record:match('^[^\n]*', (select(7, struct.unpack(HEADER, record)))) or ''
    local _, from = line:find('"result":', 1, true)
    return from and line:sub(from + 1, (line:match('.*(),"started_at":') or #line) - 1) or 'null'
  end

  -- Returns how a task has ended, by its record, and the root of that: '' if it is another task.
  local function letter_of(id, record)
    local state, _, _, _, _, _, body = struct.unpack(HEADER, record)
    local upstream = state == CANCELED_STATE and record:sub(body):match('^{"error":{"type":"UpstreamFailed"')
    if upstream then return DEAD_STATE, '' end
    return state, id
  end

-- @include own/waiting.lua
-- @include own/telling.lua
-- @include own/arriving.lua

  if mine.sent then add_sent() end
  for _, feed in ipairs(mine.feeds or {}) do
    local to, index, wants, id = unpack(feed[2])
    add_entry('t', feed[1], to, wants, index, id)
  end
  if mine.grown then grow(mine.grown[1], mine.grown[2]) end
  for _, message in ipairs(mine.messages or {}) do handle_message(message) end
  for _, gate in ipairs(mine.gates or {}) do end_gate(gate[1], gate[2]) end
  for _, left in ipairs(mine.rest or {}) do
    local letter, root, at = struct.unpack(REST, left[2])
    done_rest[#done_rest + 1] = left[1]
    notify_all(left[1]:sub(1, 1), { left[1]:sub(2) }, { letter }, { root }, nil, { left[2]:sub(at) })
  end

  -- Tasks that are canceled here are added at the end, and come next.
  local first, ended = 1, mine.ended or {}
  mine.ended = ended
  while ended[first] do
    local ids, letters, roots, records, canceled = {}, {}, {}, {}, {}
    for i = first, #ended, 3 do
      local id, letter, n = ended[i], ended[i + 1], #ids + 1
      if letter == CANCELED_STATE and not mine.letters[id] then canceled[#canceled + 1] = id end
      ids[n], letters[n], roots[n], records[n] = id, mine.letters[id] or letter, mine.roots[id] or id, ended[i + 2]
    end
    first = #ended + 1
    read_children(canceled) -- they may have waited themselves
    for _, id in ipairs(canceled) do
      if children[id] then forget_child(children[id]) end
    end
    notify_all('t', ids, letters, roots, records)
  end

  local lists = { keep_entries('t'), keep_entries('g') }
  for id, child in pairs(children) do
    if child and child[CHANGED] then keep_of(id, pack_child(child)) end
  end
  table.insert(later, 1, function() -- before a task remembers the outcome
    for id, child in pairs(children) do
      for index, result in pairs(child and child[RESULTS] or NONE) do
        call('HSET', OWN .. 'got:' .. id, index, result)
      end
    end
    for _, some in ipairs(lists) do
      for key, list in pairs(some) do write_all('RPUSH', key, list) end
    end
    for kind, fields in pairs(changed_fields) do write_all('HSET', OWN .. 'of:' .. kind, fields) end
    for name, left in pairs(rest) do call('HSET', OWN .. 'rest', name, left) end
    if remote then call('SET', OWN .. 'remote', '1') end
    for _, message in ipairs(outbox) do call('ZADD', OWN .. 'outbox', 'NX', integer(shard.ms), message) end
  end)
  last[#last + 1] = function()
    for kind, ids in pairs(notified) do write_all('HDEL', OWN .. 'of:' .. kind, ids) end
    call_all('DEL', deleted_keys)
    for _, name in ipairs(done_rest) do
      if not rest[name] then call('HDEL', OWN .. 'rest', name) end
    end
    for _, gate in ipairs(gates_ended) do
      call('SET', OWN .. 'gate:' .. gate[1], gate[2], 'PX', REMEMBERED)
      call('DEL', OWN .. 'gate-to:' .. gate[1])
      call('ZREM', OWN .. 'gates', gate[1])
    end
    if work_is_left or #outbox > 0 then call('PUBLISH', EVENTS, 'p' .. SELF) end
  end
end
