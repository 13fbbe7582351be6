-- Lists the schedules that actors declare.
--
-- KEYS  1 META of the shard
-- Reply {schedule, actor, ...}
--
-- Reads only.

-- @include lib/intact.lua

return call('HGETALL', OWN .. 'declared')
