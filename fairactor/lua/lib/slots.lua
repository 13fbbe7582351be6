-- Runtimes with slots of several kinds: which kinds have room in those that rest.

-- @include lib/base.lua
-- @takes write_slots, room, wanted, letters from lib/claim.lua
-- @takes NONE from lib/policy.lua

-- Wakes a resting runtime that can start tasks of any of these kinds, or that has one kind of slots.
local function wake_for(kinds)
  local able, others, known = {}, call('HGETALL', IDLE_SLOTS), {}
  for i = 1, #others, 2 do
    known[others[i]] = true
    if others[i + 1]:find('[' .. kinds .. ']') then able[#able + 1] = others[i] end
  end
  for _, other in ipairs(call('SMEMBERS', shard.idle)) do
    if not known[other] then able[#able + 1] = other end
  end
  for i = 1, math.min(#able, 8) do
    call('HDEL', IDLE_SLOTS, able[i])
    call('SREM', shard.idle, able[i])
    if call('PUBLISH', INBOX .. able[i], 'w') > 0 then return end
  end
end

-- Notes for which kinds a runtime has free slots, if it rests. Wakes one that can start what was passed over.
function write_slots(runtime, rests)
  local free, missing = {}, {}
  for kind, left in ipairs(room or NONE) do
    if left > 0 then free[#free + 1] = letters[kind] end
    if wanted[kind] then missing[#missing + 1] = letters[kind] end
  end
  if room and rests then call('HSET', IDLE_SLOTS, runtime, table.concat(free)) else call('HDEL', IDLE_SLOTS, runtime) end
  if #missing > 0 then wake_for(table.concat(missing)) end
end
