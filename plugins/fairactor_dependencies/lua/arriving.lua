-- A part of ends.lua: tasks that come to wait, and what other shards say.

-- @takes call, readable, read_records, LIVE from lib/base.lua
-- @takes NONE from lib/policy.lua
-- @takes later from lib/plugins.lua
-- @takes mine, gone, send_message, add_entry, letter_of, result_in from own/ends.lua
-- @takes HERE, TOLD, MESSAGE, OPEN, CLOSED, NEVER, UNHEARD, EARLY from own/ends.lua
-- @takes children, read_children, tell, judge, ID, GATE, HEARD, CHANGED, WANTED from own/waiting.lua
-- @takes end_gate from own/telling.lua

local function not_there(parent) return 'there is no task ' .. parent .. ' before it any more' end

-- What other shards say

-- A task of another shard wants to hear of a task here.
local function subscribe(place, wants, id, parent, its_shard)
  local record = call('GET', TASK .. parent)
  if not readable(record) then
    send_message(its_shard, 'e', 'C', 0, place, id, parent, '')
  elseif record:sub(1, 1) == LIVE then
    add_entry('t', parent, its_shard, wants, place, id)
  else
    local letter, root = letter_of(parent, record)
    local result = wants == 1 and letter == 'F' and result_in(record)
    send_message(its_shard, 'e', letter, 0, place, id, parent, root, result)
  end
end

-- A task hears of the end of one on another shard. Where it is still to be sent, it does when it comes.
local function hear_end(message)
  local _, _, letter, _, place, id, parent, root, at = struct.unpack(MESSAGE, message)
  read_children({ id })
  if children[id] then
    local why = { id = parent, letter = letter, root = root }
    if letter == 'C' and root == '' then why = { letter = letter, text = not_there(parent) } end
    tell(children[id], place, why, at <= #message and message:sub(at) or nil)
  elseif call('EXISTS', TASK .. id) == 0 then
    later[#later + 1] = function() call('SET', OWN .. 'early:' .. place .. ':' .. id, message, 'PX', EARLY) end
  end
end

-- Tasks that are sent

-- The records of the parents that are not of the batch itself, as far as they are here.
local function read_parents()
  local ids, found = {}, {}
  for _, sent in ipairs(mine.sent) do
    local waits = sent[2]
    for i, parent in ipairs(waits.parents or NONE) do
      local at = waits.shards and waits.shards[i] or HERE
      if at == HERE and found[parent] == nil and not mine.here[parent] then
        ids[#ids + 1], found[parent] = parent, false
      end
    end
  end
  for i, record in ipairs(read_records(ids)) do found[ids[i]] = record end
  return found
end

local function wait_for_gate(child, run)
  local ended = run and call('GET', OWN .. 'gate:' .. run)
  if ended then
    child[GATE] = ended == 'F' and OPEN or NEVER
  elseif run then
    child[GATE] = CLOSED
    add_entry('g', run, HERE, 0, 0, child[ID])
  end
end

-- Has a task wait for one of this shard, or tells it how that has ended.
local function wait_for(child, place, parent, record, wants)
  if (mine.here and mine.here[parent]) or (record and record:sub(1, 1) == LIVE) then
    add_entry('t', parent, HERE, wants, place, child[ID])
  elseif record then
    local letter, root = letter_of(parent, record)
    local why = { id = parent, letter = letter, root = root }
    tell(child, place, why, wants == 1 and why.letter == 'F' and result_in(record) or nil)
  else
    tell(child, place, { letter = 'C', text = not_there(parent) })
  end
end

local function wait_for_parent(child, waits, found, place, parent)
  local at, wants = waits.shards and waits.shards[place] or HERE, child[WANTED][place] and 1 or 0
  if at == HERE then
    wait_for(child, place, parent, found[parent], wants)
  elseif at ~= TOLD then
    send_message(at, 's', ' ', wants, place, child[ID], parent, tostring(waits.shard))
  else -- that one will tell by itself, or has done so
    local key = OWN .. 'early:' .. place .. ':' .. child[ID]
    local message = call('GET', key)
    if message then
      gone[#gone + 1] = key
      hear_end(message)
    end
  end
end

local function grow(id, others)
  read_children({ id })
  local child = children[id]
  local before = child and #child[HEARD]
  if before ~= 1 then return end
  mine.grown = nil
  child[HEARD], child[CHANGED] = child[HEARD] .. string.rep(UNHEARD, #others), true
  for i, record in ipairs(read_records(others)) do
    if children[id] then wait_for(child, before + i, others[i], record, 1) end
  end
end

local function meet_sent()
  local found = read_parents()
  for _, sent in ipairs(mine.sent) do
    local id, waits = sent[1], sent[2]
    local parents = waits.parents or NONE
    local wanted = {}
    for _, place in ipairs(waits.wants or NONE) do wanted[place] = true end
    local child = { id, waits.rule or 'all_success', OPEN, waits.keep, 0, 0, 0, waits.token or '',
      string.rep(UNHEARD, #parents), false, false, true, true, wanted }
    children[id] = child
    wait_for_gate(child, waits.gate)
    for place, parent in ipairs(parents) do
      if not children[id] then break end
      wait_for_parent(child, waits, found, place, parent)
    end
    if children[id] then judge(child) end
  end
end

local function hear(message)
  local _, kind, letter, wants, place, id, parent, root = struct.unpack(MESSAGE, message)
  if kind == 'g' then
    end_gate(id, letter)
  elseif kind == 's' then
    subscribe(place, wants, id, parent, tonumber(root))
  else
    hear_end(message)
  end
end
