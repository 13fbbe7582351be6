-- Sets the layout of the namespace: how many shards it has, and whether tenants move to them.
--
-- KEYS  1 META of the shard
-- ARGV  1 layout: its epoch, which is odd while tenants move, a colon, and the number of shards at the beginning and after
--       each growth, with commas between
-- Reply the layout that holds now: another one, if that has the same epoch or a later one
--
-- Safe to repeat: a layout only gives way to one with a later epoch.

-- @include lib/base.lua

if not shard.step then return redis.error_reply('NOTOPEN the namespace does not exist (any more): open it') end
local epoch = tonumber(ARGV[1]:match('^%d+'))
if epoch <= shard.epoch then return call('HGET', META, 'layout') or '' end
call('HSET', META, 'layout', ARGV[1])
return ARGV[1]
