-- Lets one runtime at a time move the tenants of a shard.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 ms for which it leads
-- Reply 1 if it leads, else 0
--
-- Safe to repeat: it leads for longer then.

-- @include lib/base.lua

local leader = call('GET', MOVER)
if leader and leader ~= ARGV[1] then return 0 end
call('SET', MOVER, ARGV[1], 'PX', ARGV[2])
return 1
