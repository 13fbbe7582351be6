-- Lets the lines of all kinds look again, in steps, after an actor has got a limit.
-- Its tasks do not belong where they stand, and may be what a line waits for.
--
-- KEYS  1 META of the shard
-- ARGV  1 about how many lines to look at
-- Reply 1 if there is more to do, else 0
--
-- Safe to repeat: it goes on where the call before ended.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua

local stored = limits and call('HGET', META, 'reopening')
if not stored then return 0 end
local first, cursor = stored:match('^(%d+):(%d+)$')
first = tonumber(first or 0)

local kinds = {} -- those that are left
for kind in shard.kinds:gmatch('%d+') do
  if tonumber(kind) >= first then kinds[#kinds + 1] = tonumber(kind) end
end
table.sort(kinds)
local kind, later = kinds[1], kinds[2]
if kind ~= first then cursor = nil end -- that one has gone
local found, times = kind and call('ZSCAN', LINES .. kind, cursor or 0, 'COUNT', ARGV[1]) or { '0', {} }, {}
for i = 1, #found[2], 2 do
  if found[2][i + 1] == 'inf' or tonumber(found[2][i + 1]) > shard.ms then
    times[#times + 1], times[#times + 2] = integer(shard.ms), found[2][i]
  end
end

begin_writing()
write_all('ZADD', LINES .. (kind or 0), times)
if #times > 0 then limits.woken[integer(kind)] = true end
local rest = found[1] ~= '0' and integer(kind) .. ':' .. found[1] or later and integer(later) .. ':0'
if rest then call('HSET', META, 'reopening', rest) else call('HDEL', META, 'reopening') end
save_shard()
return rest and 1 or 0
