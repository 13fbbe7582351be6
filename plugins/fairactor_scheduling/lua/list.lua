-- Lists schedules, some at a time, in the order of their names.
--
-- KEYS  1 META of the shard
-- ARGV  1 and 2 from and to where, as ZRANGEBYLEX has it, 3 how many
-- Reply {schedule, {field, value, ...}, ...}
--
-- Reads only.

-- @include lib/intact.lua
-- @include own/lib.lua

local reply = {}
for _, schedule in ipairs(call('ZRANGEBYLEX', OWN .. 'all', ARGV[1], ARGV[2], 'LIMIT', 0, tonumber(ARGV[3]))) do
  reply[#reply + 1], reply[#reply + 2] = schedule, call('HGETALL', place_of(schedule))
end
return reply
