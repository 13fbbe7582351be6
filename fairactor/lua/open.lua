-- Opens a shard of a namespace, and creates it if it is new.
--
-- KEYS  1 META of the shard
-- ARGV  1 version of the data model, 2 shards, 3 aging step of a priority in µs, 4 what is shared: 'tasks' or 'time',
--       5 the layout of the namespace, if it has had another than the first (see grow.lua), or ''
-- Reply {version, shards, step, what is shared, layout or nothing}: as given, or as the shard was created; then 1 if it
--       knows tenants that have gone to other shards, or nothing
--
-- Safe to repeat: an existing shard stays as it is.

-- @include lib/needs.lua

local plugins = redis.call('HGET', META, 'plugins')
local refusal = plugins and refuse_without(plugins)
if refusal then return refusal end
local function read() return redis.call('HMGET', META, 'version', 'shards', 'step', 'fair_by', 'layout', 'untidy') end
local found = read()
if found[1] and found[2] and found[3] then return found end
redis.call('HSET', META, 'version', ARGV[1], 'shards', ARGV[2], 'step', ARGV[3], 'fair_by', ARGV[4],
  'indexed', '1') -- see index_backlog.lua
if ARGV[5] ~= '' then redis.call('HSET', META, 'layout', ARGV[5]) end
return read()
