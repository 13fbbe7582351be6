-- A part of ends.lua: notifies the tasks that wait for an end.

-- @takes read_all, tenant_of from lib/base.lua
-- @takes budget, LEARNS, work_is_left, entries, rest, deleted, notified, gates_ended, send_message from own/ends.lua
-- @takes kept_ends, kept_late, ended_late, HERE, ENTRY, FIELD, FIELD_SIZE, CHUNKS, REST from own/ends.lua
-- @takes ASKED, ASKED_FAR, EARLY, FAR, LATE from own/ends.lua
-- @takes result_in, pack_end from own/outcome.lua
-- @takes children, read_children, notify from own/waiting.lua

local READ_AT_ONCE = 500 -- entries read at once
local SEVERAL = 1 -- in a field's flags: a list follows

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
-- `nexts` has the byte after each entry.
local function read_entries(listed, at, tos, wants, indexes, ids, nexts)
  local n = #ids
  while at <= #listed do
    local fits, to, wanted, index, id, next_at = pcall(struct.unpack, ENTRY, listed, at)
    if not fits then break end
    n = n + 1
    tos[n], wants[n], indexes[n], ids[n], nexts[n], at = to, wanted, index, id, next_at, next_at
  end
  return n
end

-- Keeps the entries from byte `at` on as the field of what has ended, and drops elements of the list after it.
local function keep_others(from, listed, at, many, flags, dropped)
  local key, id = OWN .. 'of:' .. from.kind, from.id -- `from` stands for another end later
  last[#last + 1] = function()
    call('HSET', key, id, struct.pack(FIELD, many, flags) .. listed:sub(at))
    if dropped > 0 then call('LTRIM', key .. ':' .. id, dropped, -1) end
  end
end

-- Notifies the tasks in the list after a field, within the budget. Returns whether that was all.
local function notify_list(from)
  local key, done = OWN .. 'of:' .. from.kind .. ':' .. from.id, 0
  while budget > 0 do
    local listed = call('LRANGE', key, done, done + CHUNKS - 1)
    local upto, tos, wants, indexes, ids, nexts = {}, {}, {}, {}, {}, {}
    for j, element in ipairs(listed) do upto[j] = read_entries(element, 1, tos, wants, indexes, ids, nexts) end
    read_children(ids)
    local n = 0
    for j, element in ipairs(listed) do
      if budget <= 0 then break end
      local at = 1
      done = done + 1
      while n < upto[j] and budget > 0 do
        n = n + 1
        notify_entry(from, tos[n], wants[n], indexes[n], ids[n])
        at = nexts[n]
      end
      if n < upto[j] then
        keep_others(from, element, at, upto[j] - n, SEVERAL, done)
        return false
      end
    end
    if #listed < CHUNKS and budget > 0 then
      deleted[#deleted + 1] = key
      return true
    end
  end
  keep_others(from, '', 1, 0, SEVERAL, done)
  return false
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
  local tos, wants, indexes, ids, nexts, upto = {}, {}, {}, {}, {}, {}
  local fields = read_all('HMGET', OWN .. 'of:' .. kind, ended)
  for i, field in ipairs(fields) do
    local added = entries[kind .. ended[i]]
    if field and (#ids < READ_AT_ONCE or added) then
      upto[i] = read_entries(field, FIELD_SIZE + 1, tos, wants, indexes, ids, nexts)
    end
    if added then upto[i] = read_entries(table.concat(added), 1, tos, wants, indexes, ids, nexts) end
  end
  read_children(ids)
  local from, n = { kind = kind }, 0
  for i, field in ipairs(fields) do
    local left = false
    if upto[i] and budget <= 0 then n, upto[i] = upto[i], nil end
    if field or upto[i] or entries[kind .. ended[i]] then
      from.id, from.state, from.root = ended[i], states[i], roots[i]
      from.record, from.result = records and records[i], results and results[i]
      local flags = field and field:byte(FIELD_SIZE) or 0
      if flags >= ASKED and keeps then keep_end(from, flags, keeps[i]) end
      local added, at = upto[i] and entries[kind .. ended[i]], FIELD_SIZE + 1
      if upto[i] then entries[kind .. ended[i]] = nil end
      while n < (upto[i] or n) and (budget > 0 or added) do -- those that this script has added are few
        n = n + 1
        notify_entry(from, tos[n], wants[n], indexes[n], ids[n])
        at = nexts[n]
      end
      if n < (upto[i] or n) then
        keep_others(from, field, at, upto[i] - n, flags, 0)
        n, upto[i], left = upto[i], nil, true
      end
    end
    if left or not upto[i] and (field or entries[kind .. ended[i]]) then
      leave_rest(from)
    elseif field and (field:byte(FIELD_SIZE) % 2 == 0 or notify_list(from)) then
      notified[kind] = notified[kind] or {}
      table.insert(notified[kind], ended[i])
    elseif field then
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
