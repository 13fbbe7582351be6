-- Removes a schedule, with the runs that wait. Tasks that it has sent go on.
--
-- KEYS  1 META of the shard
-- ARGV  1 schedule, 2 the version to remove, or '' for any
-- Reply how many there were
--
-- Bounded: one schedule.
-- Safe to repeat: a removed schedule is not there.

-- @include lib/intact.lua
-- @include own/lib.lua

local key = key_of(ARGV[1])
local version, previous, behind = unpack(call('HMGET', key, 'version', 'previous', 'behind'))
if ARGV[2] ~= '' and version ~= ARGV[2] then return 0 end
if behind or previous then call('HDEL', OWN .. 'behind', behind or previous) end
local found = call('DEL', key)
call('HDEL', OWN .. 'declared', ARGV[1])
call('ZREM', OWN .. 'due', ARGV[1])
call('ZREM', OWN .. 'all', ARGV[1])
return found
