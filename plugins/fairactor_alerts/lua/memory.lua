-- Returns how much memory the server uses.
--
-- KEYS  1 META of the shard
-- Reply {bytes used, the most bytes, or 0 if there is no limit or the server does not say}
--
-- Reads only.

-- @include lib/base.lua

local info = redis.pcall('INFO', 'memory')
if type(info) ~= 'string' then return { 0, 0 } end
return { tonumber(info:match('used_memory:(%d+)')) or 0, tonumber(info:match('maxmemory:(%d+)')) or 0 }
