-- Adds what a runtime has counted since its last report to the history of the namespace.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 number of the report, 3 the sums, packed as history.py says
-- Reply 1, or 0 if they were counted before, or there is no namespace
--
-- Safe to repeat: a report counts once, by its number. If the script breaks off, some sums of one report are missing.

-- @include lib/buckets.lua

local KEEP_NUMBER = 3600000 -- ms: longer than anybody repeats a report
local runtime, number = ARGV[1], tonumber(ARGV[2])

if redis.call('EXISTS', META) == 0 then return 0 end
local last = redis.call('GET', COUNTED .. runtime)
if last and number <= (tonumber(last) or 0) then return 0 end
local writes = add_to_buckets(tonumber(redis.call('TIME')[1]), cmsgpack.unpack(ARGV[3]))

redis.call('SET', COUNTED .. runtime, ARGV[2], 'PX', KEEP_NUMBER)
for _, each in ipairs(writes) do redis.call('SET', each.key, each.value, 'PX', each.ms) end
return 1
