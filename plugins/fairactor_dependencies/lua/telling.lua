-- A part of ends.lua: notifies the tasks that wait for an end.

-- @takes read_all, tenant_of from lib/base.lua
-- @takes budget, LEARNS, work_is_left, entries, rest, deleted, notified, gates_ended, send_message from own/ends.lua
-- @takes kept_ends, kept_late, ended_late, HERE, ENTRY, FIELD, FIELD_SIZE, CHUNKS, REST from own/ends.lua
-- @takes ASKED, ASKED_FAR, EARLY, FAR, LATE from own/ends.lua
-- @takes result_in, pack_end from own/outcome.lua
-- @takes children, read_children, notify from own/waiting.lua

local READ_AT_ONCE = 500 -- entries read at once

-- Leaves the others to take.lua.
local function leave_rest(from)
  work_is_left = true
  if from.state == 'F' and not from.result then from.result = result_in(from.record) end
  rest[from.kind .. from.id] = struct.pack(REST, from.state, #from.root, from.root) .. (from.result or '')
end

local function notify_entry(from, to, wants, index, id)
  budget = budget - LEARNS
  local child, result = children[id], nil
  if wants == 1 and from.state == 'F' and (child or to ~= HERE) then
    from.result = from.result or result_in(from.record)
    result = from.result
  end
  if to ~= HERE then
    send_message(to, 'e', from.state, 0, index, id, from.id, from.root, result)
  elseif child then
    notify(child, index, from, result)
  end
end

-- Appends the entries from byte `at` on to parallel lists, up to one that somebody has damaged. Returns the new length.
local function read_entries(listed, at, tos, wants, indexes, ids)
  local n = #ids
  while at <= #listed do
    local fits, to, wanted, index, id, next_at = pcall(struct.unpack, ENTRY, listed, at)
    if not fits then break end
    n = n + 1
    tos[n], wants[n], indexes[n], ids[n], at = to, wanted, index, id, next_at
  end
  return n
end

-- Notifies the tasks in the list after a field, within the budget. Returns whether that was all.
local function notify_list(from)
  local key, done, all = OWN .. 'of:' .. from.kind .. ':' .. from.id, 0, false
  while budget > 0 and not all do
    local listed, upto, tos, wants, indexes, ids = call('LRANGE', key, done, done + CHUNKS - 1), {}, {}, {}, {}, {}
    for j, element in ipairs(listed) do upto[j] = read_entries(element, 1, tos, wants, indexes, ids) end
    read_children(ids)
    local n, before = 0, done
    for j = 1, #listed do
      if budget <= 0 then break end
      for i = n + 1, upto[j] do notify_entry(from, tos[i], wants[i], indexes[i], ids[i]) end
      n, done = upto[j], done + 1
    end
    all = done - before == #listed and #listed < CHUNKS
  end
  if all then
    deleted[#deleted + 1] = key
  else
    last[#last + 1] = function() call('LTRIM', key, done, -1) end
  end
  return all
end

-- Keeps the end of a task that somebody asked for, to wait for it, if its record will be gone before.
local function keep_end(from, flags, keep)
  local ms = flags >= ASKED_FAR and FAR or EARLY
  if keep >= ms or not from.record then return end
  if from.state == 'F' then from.result = from.result or result_in(from.record) end
  kept_ends[#kept_ends + 1] = { from.id, pack_end(from.state, from.root, tenant_of(from.record), from.result), ms }
end

-- Decides how long to keep the results that were too large for the records of tasks that have ended: a failed task may
-- be redriven, and the joined results of an `each()` are what its record refers to.
local function keep_late(ids, states, records, keeps)
  if mine.any_late == nil then mine.any_late = call('EXISTS', OWN .. 'late') == 1 end
  if not mine.any_late then return end
  for i, token in ipairs(read_all('HMGET', OWN .. 'late', ids)) do
    if token then
      ended_late[#ended_late + 1] = ids[i]
      local referred = states[i] == 'F' and result_in(records[i]):find('{"fairactor_dependencies.results":', 1, true) == 1
      if states[i] == 'X' or referred then
        kept_late[#kept_late + 1] = { token, math.max(keeps[i], LATE) }
      else
        deleted[#deleted + 1] = OWN .. 'got:' .. token
      end
    end
  end
end

-- Notifies all that wait for what has ended. Parallel lists: ids, how these ended, the roots, and the records or
-- results; how many ms the records are kept. `kind` is 't' for tasks, 'g' for gates.
local function notify_all(kind, ended, states, roots, records, results, keeps)
  local tos, wants, indexes, ids, upto = {}, {}, {}, {}, {}
  local fields = read_all('HMGET', OWN .. 'of:' .. kind, ended)
  for i, field in ipairs(fields) do
    local added = entries[kind .. ended[i]]
    if field and (#ids < READ_AT_ONCE or added) then
      upto[i] = read_entries(field, FIELD_SIZE + 1, tos, wants, indexes, ids)
    end
    if added then upto[i] = read_entries(table.concat(added), 1, tos, wants, indexes, ids) end
  end
  read_children(ids)
  local from, n = { kind = kind }, 0
  for i, field in ipairs(fields) do
    if upto[i] and budget <= 0 then n, upto[i] = upto[i], nil end
    if field or upto[i] or entries[kind .. ended[i]] then
      from.id, from.state, from.root = ended[i], states[i], roots[i]
      from.record, from.result = records and records[i], results and results[i]
      local flags = field and field:byte(FIELD_SIZE) or 0
      if flags >= ASKED and keeps then keep_end(from, flags, keeps[i]) end
      if upto[i] then entries[kind .. ended[i]] = nil end
      for j = n + 1, upto[i] or n do notify_entry(from, tos[j], wants[j], indexes[j], ids[j]) end
      n = upto[i] or n
    end
    if not upto[i] and (field or entries[kind .. ended[i]]) then
      leave_rest(from)
    elseif field and (field:byte(FIELD_SIZE) % 2 == 0 or notify_list(from)) then
      notified[kind] = notified[kind] or {}
      table.insert(notified[kind], ended[i])
    elseif field then
      local id = ended[i]
      last[#last + 1] = function() call('HSET', OWN .. 'of:' .. kind, id, struct.pack(FIELD, 0, 1)) end
      leave_rest(from)
    end
  end
end

local function end_gate(run, state)
  notify_all('g', { run }, { state }, { run }, nil, { '' })
  for _, other in ipairs(call('SMEMBERS', OWN .. 'gate-to:' .. run)) do
    send_message(tonumber(other), 'g', state, 0, 0, run, '', '')
  end
  gates_ended[#gates_ended + 1] = { run, state }
end
