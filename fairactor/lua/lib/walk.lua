-- Walks over the places where tasks stand, for those who look at them. A walk stops once it has found enough, or has looked
-- at enough, and goes on from a position: what has left meanwhile does not matter.

-- @include lib/counts.lua
-- @takes scan_fields from tasks.lua

local PLACE = 4 -- what a look at a place costs, in fields
local most, most_looks, BYTES = 0, 3000, 500000 -- tasks; fields; bytes of records, by about one
local found, bytes, looks = {}, 0, 0 -- tasks: id, due time or '', runtime or '', position
local newest_first, reads_records = false, true
local stopped_at -- the position where a walk that has stopped goes on

local function is_full() return #found >= most or bytes >= BYTES or looks >= most_looks end

-- Returns true, for a walk that has stopped.
local function stop(position)
  stopped_at = position
  return true
end

-- Takes a task. Its position is where the walk goes on behind it.
local function take(id, due, runtime, position)
  found[#found + 1] = { id, due, runtime, position }
  if reads_records then bytes = bytes + call('STRLEN', TASK .. id) end
end

-- Whether one string comes before another as the server sorts them, byte by byte.
local function is_before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = a:byte(i), b:byte(i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- Returns the rank of the first member behind a score and a member, which may have left.
local function rank_behind(key, score, member)
  if call('ZSCORE', key, member) == score then return call('ZRANK', key, member) + 1 end
  local low = call('ZCOUNT', key, '-inf', '(' .. score)
  local high = low + call('ZCOUNT', key, score, score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_before(call('ZRANGE', key, middle, middle)[1], member) then low = middle + 1 else high = middle end
  end
  return low
end

-- Walks over a sorted set, from behind a position: {score, task}, or false. `wrap` makes a position complete. Returns true
-- if it has stopped before the end.
local function walk_sorted(key, position, wrap, is_due)
  looks = looks + PLACE
  local from, behind = 0, position and rank_behind(key, position[1], position[2])
  if behind then
    from = behind
    if newest_first then
      local is_there = call('ZSCORE', key, position[2]) == position[1]
      from = call('ZCARD', key) - behind + (is_there and 1 or 0)
    end
  end
  local wanted = most - #found
  local part = newest_first and call('ZRANGE', key, from, from + wanted - 1, 'REV', 'WITHSCORES')
    or call('ZRANGE', key, from, from + wanted - 1, 'WITHSCORES')
  for i = 1, #part, 2 do
    if is_full() then return stop(wrap(position)) end
    looks, position = looks + 1, { part[i + 1], part[i] }
    take(part[i], is_due and part[i + 1] or '', '', wrap(position))
  end
  return #part == 2 * wanted and stop(wrap(position))
end

-- Walks over a list from its end, from before a position: {task}, or false. Likewise.
local function walk_list(key, position, wrap)
  looks = looks + PLACE
  local last = call('LLEN', key) - 1
  if position then
    local at = call('LPOS', key, position[1], 'RANK', -1)
    if not at then return false end -- it was cut off, so all that is left came later
    last = at - 1
  end
  local first = math.max(0, last - (most - #found) + 1)
  local part = last >= 0 and call('LRANGE', key, first, last) or {}
  for i = #part, 1, -1 do
    if is_full() then return stop(wrap(position)) end
    looks, position = looks + 1, { part[i] }
    take(part[i], '', '', wrap(position))
  end
  return first > 0 and #part > 0 and stop(wrap(position))
end

-- Walks over a hash in the order of a scan, from a position: {cursor, how many fields of that step to pass over, the last
-- of them or false, where it goes on in that one, if it does}, or false. `visit` gets a field, its value, the position in
-- the field, and a function that makes positions there complete; it returns true if it has stopped in the field.
local function walk_hash(key, position, wrap, visit)
  looks = looks + PLACE
  local cursor, skip, last, inner = unpack(position or { '0', 0, false, nil }, 1, 4)
  repeat
    local part = scan_fields(key, cursor)
    local fields = part[2]
    if last and fields[2 * skip - 1] ~= last then -- fields have come or gone
      local at = 0
      for i = 1, #fields, 2 do if fields[i] == last then at = (i + 1) / 2 end end
      if at == 0 then inner = nil end
      skip = at
    end
    for i = inner ~= nil and 2 * skip - 1 or 2 * skip + 1, #fields, 2 do
      local field, number = fields[i], (i + 1) / 2
      if is_full() then return stop(wrap({ cursor, number - 1, fields[i - 2] or false })) end
      looks = looks + 1
      local function wrap_inner(position_in) return wrap({ cursor, number, field, position_in }) end
      if visit(field, fields[i + 1], inner, wrap_inner) then return true end
      inner = nil
    end
    cursor, skip, last = part[1], 0, nil
  until cursor == '0'
  return false
end
