-- Deletes schedules of a tenant that have arrived on its new shard.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, 2 and on: schedules
-- Reply 1, or 0 if the tenant does not belong to another shard
--
-- Bounded: its caller gives it what export.lua has returned.
-- Safe to repeat: what is deleted is not there.

-- @include lib/intact.lua
-- @include own/lib.lua

if not has_left(ARGV[1]) then return 0 end
for i = 2, #ARGV do delete(ARGV[i]) end
return 1
