-- Lists schedules, some at a time, in the order of their names.
--
-- KEYS  1 META of the shard
-- ARGV  1 and 2 from and to where, as ZRANGEBYLEX has it, 3 how many, 4 and on fields
-- Reply {schedule, {value, ...}, ...}; nothing in place of what is not there
--
-- Reads only.

-- @include lib/intact.lua
-- @include own/lib.lua

local reply = {}
for _, schedule in ipairs(call('ZRANGEBYLEX', OWN .. 'all', ARGV[1], ARGV[2], 'LIMIT', 0, tonumber(ARGV[3]))) do
  reply[#reply + 1], reply[#reply + 2] = schedule, call('HMGET', key_of(schedule), unpack(ARGV, 4))
end
return reply
