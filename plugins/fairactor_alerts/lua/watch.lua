-- Decides which runtime checks some rules now: one at a time, so that the server is not asked by all.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 digest of the rules, 3 ms for which it checks them
-- Reply 1 if it checks them, else 0
--
-- Safe to repeat: it checks them for longer then.

-- @include lib/intact.lua

local key = OWN .. 'watcher:' .. ARGV[2]
local watcher = call('GET', key)
if watcher and watcher ~= ARGV[1] then return 0 end
call('SET', key, ARGV[1], 'PX', ARGV[3])
return 1
