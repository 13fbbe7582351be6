-- A part of ends.lua: messages of other shards, and sent tasks.

-- @takes tenant_of, LIVE from lib/base.lua
-- @takes NONE from lib/policy.lua
-- @takes budget, HANDLES, PIECE, deleted, send_message, add_entry from own/ends.lua
-- @takes HERE, NOTIFIES, MESSAGE, OPEN, CLOSED, NEVER, PENDING, EARLY, LATE from own/ends.lua
-- @takes state_of, result_in, END from own/outcome.lua
-- @takes read_heads from own/heads.lua
-- @takes children, read_children, notify, decide, ID, GATE, OUTCOMES, CHANGED, REFUSED from own/waiting.lua
-- @takes end_gate from own/telling.lua

local function belongs_to(record, tenant) return record and (tenant == '' or tenant_of(record) == tenant) end

local function no_parent(parent) return 'upstream task ' .. parent .. ' no longer exists' end

-- Returns how a task ended whose record is gone: state, root, result; nil if that is not known.
local function kept_end(id, tenant)
  local kept = call('GET', OWN .. 'end:' .. id)
  if not kept then return nil end
  local state, root, owner, at = struct.unpack(END, kept)
  if tenant ~= '' and tenant ~= owner then return nil end
  return state, root, at <= #kept and kept:sub(at) or nil
end

local function result_of(id) return result_in(call('GET', TASK .. id) or nil) end

-- Messages of other shards

-- A task of another shard is to wait for one of this shard, of that tenant, or '' for any.
local function subscribe(index, wants, id, parent, its_shard, tenant)
  local record = read_heads({ parent })[1]
  if not (record and belongs_to(record, tenant)) then
    local state, root, result = kept_end(parent, tenant)
    budget = budget - (wants == 1 and result and #result or 0) / PIECE
    send_message(its_shard, 'e', state or 'C', 0, index, id, parent, root or '', wants == 1 and result or nil)
  elseif record:sub(1, 1) == LIVE then
    add_entry('t', parent, its_shard, wants, index, id)
  else
    local state, root = state_of(parent, record)
    local result = wants == 1 and state == 'F' and result_of(parent)
    budget = budget - (result and #result or 0) / PIECE
    send_message(its_shard, 'e', state, 0, index, id, parent, root, result)
  end
end

-- A parent on another shard has ended. A task not sent yet gets the message when it is.
local function handle_end(message)
  local _, _, state, _, index, id, parent, root, at = struct.unpack(MESSAGE, message)
  read_children({ id })
  if children[id] then
    local cause = { id = parent, state = state, root = root }
    if state == 'C' and root == '' then cause = { state = state, text = no_parent(parent) } end
    notify(children[id], index, cause, at <= #message and message:sub(at) or nil)
  elseif call('EXISTS', TASK .. id) == 0 then
    later[#later + 1] = function() call('SET', OWN .. 'early:' .. index .. ':' .. id, message, 'PX', EARLY) end
  end
end

-- Sent tasks

-- Returns the records of the parents on this shard, outside the batch.
local function read_parents()
  local ids, found = {}, {}
  for _, sent in ipairs(mine.sent) do
    local waits = sent[2]
    for i, parent in ipairs(waits.parents or NONE) do
      local at = waits.shards and waits.shards[i] or HERE
      if at == HERE and found[parent] == nil and not mine.in_batch[parent] then
        ids[#ids + 1], found[parent] = parent, false
      end
    end
  end
  for i, head in ipairs(read_heads(ids)) do found[ids[i]] = head end
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

-- Lets a task wait for a parent on this shard, or notifies it if that has ended.
local function wait_for(child, index, parent, record, wants, tenant)
  local in_batch = mine.in_batch and mine.in_batch[parent]
  if not belongs_to(record, tenant) then record = nil end
  if (in_batch and (tenant == '' or in_batch == tenant)) or (record and record:sub(1, 1) == LIVE) then
    add_entry('t', parent, HERE, wants, index, child[ID])
  elseif record then
    local state, root = state_of(parent, record)
    local cause = { id = parent, state = state, root = root }
    notify(child, index, cause, wants == 1 and cause.state == 'F' and result_of(parent) or nil)
  else
    local state, root, result = kept_end(parent, tenant)
    local cause = state and { id = parent, state = state, root = root } or { state = 'C', text = no_parent(parent) }
    notify(child, index, cause, wants == 1 and result or nil)
  end
end

-- Lets a task wait for a parent. `at` is its shard, `tenant` its tenant, or '' for any; `here` the shard of the task.
local function wait_for_parent(child, found, index, parent, wants, at, tenant, here)
  if at == HERE then
    wait_for(child, index, parent, found[parent], wants, tenant)
  elseif at ~= NOTIFIES then
    send_message(at, 's', ' ', wants, index, child[ID], parent, tostring(here), tenant)
  else -- the other shard notifies this one by itself
    local key = OWN .. 'early:' .. index .. ':' .. child[ID]
    local message = call('GET', key)
    if message then
      deleted[#deleted + 1] = key
      handle_end(message)
    end
  end
end

-- Lets a task wait for items that are about to be sent.
local function map_items(mapped)
  local id, many = mapped.id, mapped.many
  read_children({ id })
  local child = children[id]
  local before = child and #child[OUTCOMES]
  if before ~= 1 and before ~= 1 + many then return end
  mapped.done = true
  if before == 1 then child[OUTCOMES], child[CHANGED] = child[OUTCOMES] .. string.rep(PENDING, many), true end
  later[#later + 1] = function() call('SET', OWN .. 'map:' .. id, many .. ':0:o', 'PX', LATE) end
end

-- Gives a task, maybe of another shard, the ends of items that finished in an earlier attempt at the run.
local function adopt(adopted)
  if adopted.shard then
    for _, item in ipairs(adopted) do
      local index, id, record = unpack(item)
      send_message(adopted.shard, 'e', 'F', 0, index + 1, adopted.id, id, id, result_in(record))
    end
    return
  end
  read_children({ adopted.id })
  for _, item in ipairs(adopted) do
    local index, id, record = unpack(item)
    local child = children[adopted.id]
    if child and #child[OUTCOMES] > index then
      notify(child, index + 1, { id = id, state = 'F', root = id }, result_in(record))
    end
  end
end

local function add_sent()
  local found = read_parents()
  for _, sent in ipairs(mine.sent) do
    local id, waits = sent[1], sent[2]
    local parents = waits.parents or NONE
    local wanted = {}
    for _, index in ipairs(waits.wants or NONE) do wanted[index] = true end
    local child = { id, waits.rule or 'all_success', OPEN, waits.keep, 0, 0, 0, waits.token or '',
      string.rep(PENDING, waits.many or #parents), false, false, true, true }
    children[id] = child
    if waits.refused then
      child[GATE], child[REFUSED] = NEVER, true
      add_entry('t', id, HERE, 0, waits.refused[2] + 1, waits.refused[1])
    else
      wait_for_gate(child, waits.gate)
    end
    for index, parent in ipairs(parents) do
      if not children[id] then break end
      local at, tenant = waits.shards and waits.shards[index] or HERE, waits.tenants and waits.tenants[index] or ''
      wait_for_parent(child, found, index, parent, wanted[index] and 1 or 0, at, tenant, waits.shard)
    end
    if waits.many then later[#later + 1] = function() call('SET', OWN .. 'fill:' .. id, waits.gate, 'PX', EARLY) end end
    if children[id] then decide(child) end
  end
end

-- Lets tasks that were sent without them wait for more of their parents, within the budget.
local function fill(filled)
  local ids, heads_of, found = {}, {}, {}
  for _, one in ipairs(filled) do
    ids[#ids + 1] = one[1]
    if one[5] == HERE then heads_of[#heads_of + 1] = one[3] end
  end
  read_children(ids)
  for i, head in ipairs(read_heads(heads_of)) do found[heads_of[i]] = head end
  for n, one in ipairs(filled) do
    if budget <= 0 then break end
    local id, index, parent, wants, at, tenant, here = unpack(one)
    budget = budget - HANDLES
    local child = mine.may_fill[id] and children[id]
    if child then
      wait_for_parent(child, found, index, parent, wants, at, tenant, here)
      if index == #child[OUTCOMES] then deleted[#deleted + 1] = OWN .. 'fill:' .. id end
    end
    filled.done = n
  end
end

local function handle(message)
  budget = budget - HANDLES
  local _, kind, state, wants, index, id, parent, root, at = struct.unpack(MESSAGE, message)
  if kind == 'g' then
    end_gate(id, state)
  elseif kind == 's' then
    subscribe(index, wants, id, parent, tonumber(root), message:sub(at))
  else
    handle_end(message)
  end
end
