-- Sets the layout of the namespace: how many shards it has, and whether tenants move to them.
--
-- KEYS  1 META of the shard
-- ARGV  1 layout: its epoch, which is odd while tenants move, a colon, and the number of shards at the beginning and after
--       each growth, with commas between, 2 '1': what the shard knew of tenants that have gone is deleted, or ''
-- Reply the layout that holds now: another one, if that has the same epoch or a later one
--
-- Safe to repeat: a layout only gives way to one with a later epoch.

-- @include lib/base.lua

if not shard.step then return redis.error_reply('NOTOPEN the namespace does not exist (any more): open it') end
local epoch, is_tidy = tonumber(ARGV[1]:match('^%d+')), ARGV[2] == '1'
if epoch == shard.epoch and is_tidy then call('HDEL', META, 'untidy') end
if epoch <= shard.epoch then return call('HGET', META, 'layout') or '' end
call('HSET', META, 'layout', ARGV[1])
if not shard.later_only then call('HSET', META, 'plugins', ',' .. LATER_RELEASE .. (shard.plugins or ',')) end
if epoch % 2 == 0 and not is_tidy then call('HSET', META, 'untidy', '1') end
return ARGV[1]
