-- Reads a schedule.
--
-- KEYS  1 META of the shard
-- ARGV  1 schedule, 2 and on: fields
-- Reply {the server's time in ms, value, ...}; nothing for a missing value;
--       or the error GONE: the tenant has moved to another shard
--
-- Bounded: one schedule.
-- Reads only.

-- @include lib/intact.lua
-- @include own/lib.lua
-- @include own/home.lua

local reply = { integer(shard.wall_ms) }
for i, value in ipairs(call('HMGET', key_of(ARGV[1]), unpack(ARGV, 2))) do reply[i + 1] = value end
return reply
