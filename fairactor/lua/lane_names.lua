-- Lists the lanes that have queued tasks, in steps.
--
-- KEYS  1 META of the shard
-- ARGV  1 cursor, 0 at first
-- Reply {next cursor, 0 at the end, {lane, 0 or since when no runtime serves it, ...}, 1 if some tasks may have or may have had
--        another lane than the common one, else 0}; one may come twice
--
-- Reads only. It looks at about 500 lanes.

-- @include lib/intact.lua

local part = call('HSCAN', LANES, ARGV[1], 'COUNT', 500)
return { part[1], part[2], shard.lanes and 1 or 0 }
