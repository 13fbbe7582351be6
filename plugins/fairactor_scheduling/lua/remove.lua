-- Removes a schedule, with the runs that wait. Tasks that it has sent go on.
--
-- KEYS  1 META of the shard
-- ARGV  1 schedule, 2 the version to remove, or '' for any
-- Reply how many there were, or the error GONE: the tenant has moved to another shard
--
-- Bounded: one schedule.
-- Safe to repeat: a removed schedule is not there.

-- @include lib/intact.lua
-- @include own/lib.lua
-- @include own/home.lua

local REMEMBERED = 3600000 -- ms: longer than a schedule is on its way from the shard where it was (import.lua)
local version = call('HGET', key_of(ARGV[1]), 'version')
if ARGV[2] ~= '' and version ~= ARGV[2] then return 0 end
if version and shard.epoch > 0 then call('SET', OWN .. 'removed:' .. ARGV[1], '1', 'PX', REMEMBERED) end
return delete(ARGV[1])
