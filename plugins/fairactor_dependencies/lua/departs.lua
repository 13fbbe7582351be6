-- Keeps a tenant on the shard as long as others wait for one of its live tasks, or have asked for one to wait for it, or
-- results are kept here for one. It may also stay if there is too much to look at.

-- @takes mailbox, read_all, readable, tenant_of, LIVE from lib/base.lua

local LOOKS = 500
local of, late = OWN .. 'of:t', OWN .. 'late'
local noted = call('HLEN', of) + call('HLEN', late)

-- Returns the waiting tasks of the tenant; nil if there are too many.
local function waiting_tasks()
  local places = { SUSPECTS .. name, DELAYED .. name, QUEUE .. name }
  local many = call('ZCARD', LANES_OF .. name)
  if many > LOOKS then return nil end
  for _, lane in ipairs(call('ZRANGE', LANES_OF .. name, 0, -1)) do places[#places + 1] = mailbox(name, lane) end
  many = 0
  for _, place in ipairs(places) do many = many + call('ZCARD', place) end
  if many > LOOKS then return nil end
  local ids = {}
  for _, place in ipairs(places) do
    for _, id in ipairs(call('ZRANGE', place, 0, -1)) do ids[#ids + 1] = id end
  end
  return ids
end

local function is_noted(ids)
  for _, key in ipairs({ of, late }) do
    for _, field in ipairs(read_all('HMGET', key, ids)) do
      if field then return true end
    end
  end
  return false
end

local function has_one_that_is_noted()
  for _, key in ipairs({ of, late }) do
    for _, id in ipairs(call('HKEYS', key)) do
      local head = call('GETRANGE', TASK .. id, 0, 599) -- records may be large
      if readable(head) and head:sub(1, 1) == LIVE and tenant_of(head) == name then return true end
    end
  end
  return false
end

if noted > 0 then
  local ids = waiting_tasks()
  if ids then
    stays = stays or is_noted(ids)
  elseif noted <= LOOKS then
    stays = stays or has_one_that_is_noted()
  else
    stays = true
  end
end
