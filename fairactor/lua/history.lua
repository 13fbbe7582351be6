-- Returns buckets of the history (see lib/buckets.lua).
--
-- KEYS  1 META of the shard
-- ARGV  1 seconds of a bucket, 2 kind of names: 'all', 'actor', 'queue' or 'tenant', 3 number of the last bucket, or '' for
--       that of now, 4 how many
-- Reply {number of the last bucket, a value for each bucket, the oldest first; '' if nothing happened}
--
-- Reads only.

local seconds = tonumber(ARGV[1])
local last = tonumber(ARGV[3]) or math.floor(tonumber(redis.call('TIME')[1]) / seconds)
local keys = {}
for number = last - tonumber(ARGV[4]) + 1, last do
  keys[#keys + 1] = string.format('%s%d:%d:%s', BUCKETS, seconds, number, ARGV[2])
end
local reply = { last }
for i, value in ipairs(redis.call('MGET', unpack(keys))) do reply[i + 1] = value or '' end
return reply
