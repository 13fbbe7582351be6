-- Tells which tasks wait for a task.
--
-- KEYS  1 META of the shard
-- ARGV  1 the task, 2 how many at most
-- Reply [shard, or 65535 for this one; task] ...
--
-- Bounded: its caller asks for 100 tasks.
-- Reads only.

-- @include lib/intact.lua

local ENTRY, FIELD, FIELD_SIZE, CHUNKS = '>HBI4Hc0', '>HB', 3, 10 -- as in ends.lua
local id, most, reply = ARGV[1], tonumber(ARGV[2]), {}

local function add_entries(packed)
  local at = 1
  while at <= #packed and #reply < 2 * most do
    local shard_of_it, _, _, child, behind = struct.unpack(ENTRY, packed:sub(at))
    reply[#reply + 1], reply[#reply + 2], at = shard_of_it, child, at + behind - 1
  end
end

local field = call('HGET', OWN .. 'of:t', id)
if field and #field >= FIELD_SIZE then
  local _, flags = struct.unpack(FIELD, field)
  add_entries(field:sub(FIELD_SIZE + 1))
  if flags % 2 == 1 then
    for _, chunk in ipairs(call('LRANGE', OWN .. 'of:t:' .. id, 0, CHUNKS - 1)) do add_entries(chunk) end
  end
end
return reply
