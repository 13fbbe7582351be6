-- A part of ends.lua: messages of other shards, and sent tasks.

-- @takes readable, read_records, tenant_of, LIVE from lib/base.lua
-- @takes NONE from lib/policy.lua
-- @takes deleted, send_message, add_entry, state_of, result_in from own/ends.lua
-- @takes HERE, NOTIFIES, MESSAGE, OPEN, CLOSED, NEVER, PENDING, EARLY from own/ends.lua
-- @takes children, read_children, notify, decide, ID, GATE, OUTCOMES, CHANGED, WANTED from own/waiting.lua
-- @takes end_gate from own/telling.lua

local function belongs_to(record, tenant) return record and (tenant == '' or tenant_of(record) == tenant) end

local function no_parent(parent) return 'upstream task ' .. parent .. ' no longer exists' end

-- Messages of other shards

-- A task of another shard is to wait for one of this shard, of that tenant, or '' for any.
local function subscribe(index, wants, id, parent, its_shard, tenant)
  local record = call('GET', TASK .. parent)
  if not (readable(record) and belongs_to(record, tenant)) then
    send_message(its_shard, 'e', 'C', 0, index, id, parent, '')
  elseif record:sub(1, 1) == LIVE then
    add_entry('t', parent, its_shard, wants, index, id)
  else
    local state, root = state_of(parent, record)
    local result = wants == 1 and state == 'F' and result_in(record)
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

-- Lets a task wait for a parent on this shard, or notifies it if that has ended.
local function wait_for(child, index, parent, record, wants, tenant)
  local in_batch = mine.in_batch and mine.in_batch[parent]
  if not belongs_to(record, tenant) then record = nil end
  if (in_batch and (tenant == '' or in_batch == tenant)) or (record and record:sub(1, 1) == LIVE) then
    add_entry('t', parent, HERE, wants, index, child[ID])
  elseif record then
    local state, root = state_of(parent, record)
    local cause = { id = parent, state = state, root = root }
    notify(child, index, cause, wants == 1 and cause.state == 'F' and result_in(record) or nil)
  else
    notify(child, index, { state = 'C', text = no_parent(parent) })
  end
end

local function wait_for_parent(child, waits, found, index, parent)
  local at, wants = waits.shards and waits.shards[index] or HERE, child[WANTED][index] and 1 or 0
  local tenant = waits.tenants and waits.tenants[index] or ''
  if at == HERE then
    wait_for(child, index, parent, found[parent], wants, tenant)
  elseif at ~= NOTIFIES then
    send_message(at, 's', ' ', wants, index, child[ID], parent, tostring(waits.shard), tenant)
  else -- the other shard notifies this one by itself
    local key = OWN .. 'early:' .. index .. ':' .. child[ID]
    local message = call('GET', key)
    if message then
      deleted[#deleted + 1] = key
      handle_end(message)
    end
  end
end

local function grow(id, others)
  read_children({ id })
  local child = children[id]
  local before = child and #child[OUTCOMES]
  if before ~= 1 then return end
  mine.grown = nil
  child[OUTCOMES], child[CHANGED] = child[OUTCOMES] .. string.rep(PENDING, #others), true
  for i, record in ipairs(read_records(others)) do
    if children[id] then wait_for(child, before + i, others[i], record, 1, '') end
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
      string.rep(PENDING, #parents), false, false, true, true, wanted }
    children[id] = child
    wait_for_gate(child, waits.gate)
    for index, parent in ipairs(parents) do
      if not children[id] then break end
      wait_for_parent(child, waits, found, index, parent)
    end
    if children[id] then decide(child) end
  end
end

local function handle(message)
  local _, kind, state, wants, index, id, parent, root, at = struct.unpack(MESSAGE, message)
  if kind == 'g' then
    end_gate(id, state)
  elseif kind == 's' then
    subscribe(index, wants, id, parent, tonumber(root), message:sub(at))
  else
    handle_end(message)
  end
end
