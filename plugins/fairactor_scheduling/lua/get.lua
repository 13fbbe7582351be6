-- Reads a schedule.
--
-- KEYS  1 META of the shard
-- ARGV  1 schedule
-- Reply {the server's time in ms, field, value, ...}; no fields where there is none
--
-- Reads only.

-- @include lib/intact.lua
-- @include own/lib.lua

local reply = { integer(shard.ms) }
for _, value in ipairs(call('HGETALL', place_of(ARGV[1]))) do reply[#reply + 1] = value end
return reply
