-- Lists schedules in the order of their names, in steps.
--
-- KEYS  1 META of the shard
-- ARGV  1 and 2 the range, as ZRANGEBYLEX takes it, 3 how many, 4 the tenant of all of them, or '', 5 and on: fields
-- Reply {schedule, {value, ...}, ...}; nothing for a missing value; no schedule after the last one;
--       or the error GONE: the tenant has moved to another shard
--
-- Bounded: its caller asks for 100 schedules, and it returns about 1 MB.
-- Reads only.

-- @include lib/intact.lua
-- @include own/lib.lua

local BYTES = 1048576
if moving(ARGV[4]) == 'gone' then return redis.error_reply('GONE the tenant has moved to another shard') end
local reply, size = {}, 0
for _, schedule in ipairs(call('ZRANGEBYLEX', OWN .. 'all', ARGV[1], ARGV[2], 'LIMIT', 0, tonumber(ARGV[3]))) do
  if size >= BYTES then break end
  local values = call('HMGET', key_of(schedule), unpack(ARGV, 5))
  for _, value in ipairs(values) do size = size + (value and #value or 0) end
  reply[#reply + 1], reply[#reply + 2] = schedule, values
end
return reply
