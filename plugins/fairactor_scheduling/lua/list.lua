-- Lists schedules in the order of their names, in steps.
--
-- KEYS  1 META of the shard
-- ARGV  1 and 2 the range, as ZRANGEBYLEX takes it, 3 how many, 4 and on: fields
-- Reply {schedule, {value, ...}, ...}; nothing for a missing value
--
-- Reads only.

-- @include lib/intact.lua
-- @include own/lib.lua

local reply = {}
for _, schedule in ipairs(call('ZRANGEBYLEX', OWN .. 'all', ARGV[1], ARGV[2], 'LIMIT', 0, tonumber(ARGV[3]))) do
  reply[#reply + 1], reply[#reply + 2] = schedule, call('HMGET', key_of(schedule), unpack(ARGV, 4))
end
return reply
