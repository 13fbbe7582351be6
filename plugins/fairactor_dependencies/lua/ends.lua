-- Decides what becomes of waiting tasks. Its input is in lists: `mine.sent`, accepted tasks and what they wait for;
-- `mine.ended`, tasks; `mine.gates` that have ended; `mine.messages` of other shards; `mine.rest`, names of what
-- earlier scripts left; `mine.filled`, tasks and more of their parents; `mine.mapped`, a task and how many items it
-- joins; `mine.adopted`, a task and items that ended before.
--
-- What a task waits for is kept with its hold. 'of:t' has a field for each task that others wait for, 'of:g' for each
-- gate; many go on in a list. 'got:' and a task's token holds results for it. They stay there, and 'late' names the
-- token, if they are too large for the task's record: the runtime that runs the task reads them (results.lua).
--
-- An end is F finished, X failed, C canceled or S skipped; X too if another's failure canceled the task. A task remembers each
-- parent's outcome, so an end changes nothing the second time. Those that wait are stored before it and deleted after
-- it, so a repeat completes a script that failed halfway.

-- @takes integer, read_all, write_all, call_all, CANCELED_STATE from lib/base.lua
-- @takes keep_of from lib/admit.lua

if mine.sent or mine.ended or mine.gates or mine.messages or mine.rest or mine.filled or mine.mapped
  or mine.adopted then
  -- What one script may spend, in units of about 35 µs; take.lua does the rest. A turn also has other work. A task that
  -- is released costs 1, one that ends 4, the news of an end 0.1, a message or a parent 0.25, each 10 kB copied 1.
  local BUDGET, BUDGET_ALONE = 100, 120
  local RELEASES, ENDS, LEARNS, HANDLES, PIECE = 1, 4, 0.1, 0.25, 10240
  local HERE, NOTIFIES = 65535, 65534
  local WAITING = '>Bc0c1dI4I4I4Bc0' -- rule, gate, keep, how many parents are F, X and C, token; then each one's state
  local ENTRY = '>HBI4Hc0' -- shard, whether it wants the result, index, task
  local FIELD, FIELD_SIZE, MOST = '>HB', 3, 20 -- number of entries, MOST at most; 1 if a list follows, 2 and 4 if
  -- somebody nearby or on another shard asked for the task, to wait for it
  local ASKED, ASKED_FAR = 2, 4
  local CHUNK, CHUNKS = 10, 10 -- entries in an element of a list; elements read at once
  local MESSAGE = '>Hc1c1BI4Hc0Hc0Hc0' -- to, kind, state, wants, index, task or run, parent, root; then the result, or
  -- the tenant of the parent
  local REST = '>c1Hc0' -- state, root; then the result
  local OPEN, CLOSED, NEVER = 'o', 'c', 'n'
  local PENDING, PENDING_BYTE = '?', 63
  local MOST_TRACED = 10000 -- ended tasks whose spans are still to be made; more are forgotten
  local REMEMBERED = 3600000 -- ms for which the end of a gate is remembered
  local EARLY = 300000 -- ms that an end is kept for a task not sent yet: as long as for a gate
  local FAR = 86400000 -- ms that an end is kept for a task of another shard that asked for it
  local FEW, SMALL = 100, 65536 -- results, and bytes of results, that fit into a task's record
  local COPIED = 1048576 -- bytes of results that one task's record gets
  local LATE = 604800000 -- ms for which other results are kept at least, once their task has ended

  local budget = (mine.rest or mine.filled or mine.messages) and BUDGET_ALONE or BUDGET
  local entries, outbox, rest, deleted, notified = {}, {}, {}, {}, {} -- what to write and to delete
  local updates, done_rest, gates_ended = { t = {}, g = {} }, {}, {}
  local kept_ends, late, kept_late, ended_late = {}, {}, {}, {}
  local remote, work_is_left = false, false

  local function send_message(to, kind, state, wants, index, id, parent, root, result)
    outbox[#outbox + 1] = struct.pack(MESSAGE, to, kind, state, wants, index, #id, id, #parent, parent, #root, root)
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

  -- Adds entries to fields while these are short. Returns the lists for the others.
  local function keep_entries(kind)
    local ids, lists = {}, {}
    for name in pairs(entries) do
      if name:sub(1, 1) == kind then ids[#ids + 1] = name:sub(2) end
    end
    for i, field in ipairs(read_all('HMGET', OWN .. 'of:' .. kind, ids)) do
      local added, count, flags = entries[kind .. ids[i]], 0, 0
      if field then count, flags = struct.unpack(FIELD, field) end
      local has_list = flags % 2
      local before = field and field:sub(FIELD_SIZE + 1) or ''
      if has_list == 0 and count + #added <= MOST then
        field = struct.pack(FIELD, count + #added, flags) .. before .. table.concat(added)
      else
        field = struct.pack(FIELD, count, flags - has_list + 1) .. before
        local chunks = {}
        for j = 1, #added, CHUNK do
          chunks[#chunks + 1] = table.concat(added, '', j, math.min(j + CHUNK - 1, #added))
        end
        lists[OWN .. 'of:' .. kind .. ':' .. ids[i]] = chunks
      end
      updates[kind][2 * i - 1], updates[kind][2 * i] = ids[i], field
    end
    return lists
  end

-- @include own/outcome.lua
-- @include own/heads.lua
-- @include own/waiting.lua
-- @include own/telling.lua
-- @include own/arriving.lua

  if mine.sent then add_sent() end
  for _, feed in ipairs(mine.feeds or {}) do
    local to, index, wants, id = unpack(feed[2])
    add_entry('t', feed[1], to, wants, index, id)
  end
  if mine.mapped then map_items(mine.mapped) end
  if mine.adopted then adopt(mine.adopted) end
  if mine.filled then fill(mine.filled) end
  for n, message in ipairs(mine.messages or {}) do
    if budget <= 0 then break end
    handle(message)
    mine.handled = n
  end
  for _, gate in ipairs(mine.gates or {}) do end_gate(gate[1], gate[2]) end
  for _, name in ipairs(mine.rest or {}) do
    if budget <= 0 then break end
    local left = call('HGET', OWN .. 'rest', name) or ''
    local fits, state, root, at = pcall(struct.unpack, REST, left)
    done_rest[#done_rest + 1] = name -- one that somebody has damaged is dropped
    if fits then notify_all(name:sub(1, 1), { name:sub(2) }, { state }, { root }, nil, { left:sub(at) }) end
  end

  -- Tasks canceled here are appended, and come next.
  local first, ended = 1, mine.ended or {}
  mine.ended = ended
  while ended[first] do
    local ids, states, roots, records, keeps, canceled = {}, {}, {}, {}, {}, {}
    for i = first, #ended, 4 do
      local id, state, n = ended[i], ended[i + 1], #ids + 1
      if state == CANCELED_STATE and not mine.states[id] then canceled[#canceled + 1] = id end
      ids[n], states[n], roots[n], records[n] = id, mine.states[id] or state, mine.roots[id] or id, ended[i + 2]
      keeps[n] = ended[i + 3]
    end
    first = #ended + 1
    read_children(canceled) -- they may have waited themselves
    for _, id in ipairs(canceled) do
      if children[id] then forget_child(children[id]) end
    end
    keep_late(ids, states, records, keeps)
    notify_all('t', ids, states, roots, records, nil, keeps)
  end

  local lists = { keep_entries('t'), keep_entries('g') }
  for id, child in pairs(children) do
    if child and child[CHANGED] then keep_of(id, pack_child(child)) end
  end
  table.insert(later, 1, function() -- before a task remembers the outcome
    for id, child in pairs(children) do
      if child then keep_results(child) end
    end
    for _, child in ipairs(late) do
      keep_results(child)
      call('HSET', OWN .. 'late', child[ID], child[TOKEN])
    end
    for _, kept in ipairs(kept_ends) do call('SET', OWN .. 'end:' .. kept[1], kept[2], 'PX', kept[3]) end
    for _, some in ipairs(lists) do
      for key, list in pairs(some) do write_all('RPUSH', key, list) end
    end
    for kind, fields in pairs(updates) do write_all('HSET', OWN .. 'of:' .. kind, fields) end
    for name, left in pairs(rest) do call('HSET', OWN .. 'rest', name, left) end
    if remote then call('SET', OWN .. 'remote', '1') end
    for _, message in ipairs(outbox) do call('ZADD', OWN .. 'outbox', 'NX', integer(shard.ms), message) end
  end)
  last[#last + 1] = function()
    for kind, ids in pairs(notified) do write_all('HDEL', OWN .. 'of:' .. kind, ids) end
    call_all('UNLINK', deleted)
    for _, kept in ipairs(kept_late) do call('PEXPIRE', OWN .. 'got:' .. kept[1], integer(kept[2])) end
    if #ended_late > 0 then write_all('HDEL', OWN .. 'late', ended_late) end
    for _, name in ipairs(done_rest) do
      if not rest[name] then call('HDEL', OWN .. 'rest', name) end
    end
    for _, gate in ipairs(gates_ended) do
      call('SET', OWN .. 'gate:' .. gate[1], gate[2], 'PX', REMEMBERED)
      call('DEL', OWN .. 'gate-to:' .. gate[1])
      call('ZREM', OWN .. 'gates', gate[1])
    end
    if mine.traced then
      write_all('RPUSH', OWN .. 'ended', mine.traced)
      call('LTRIM', OWN .. 'ended', -MOST_TRACED, -1)
      call('PEXPIRE', OWN .. 'ended', REMEMBERED)
    end
    if work_is_left or #outbox > 0 or mine.traced then call('PUBLISH', EVENTS, 'p' .. SELF) end
  end
end
