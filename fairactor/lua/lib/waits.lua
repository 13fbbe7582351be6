-- How long tasks have waited in their mailboxes.

-- @include lib/base.lua

-- Returns the ms that the first task of a mailbox has waited; nil if the mailbox is empty.
local function waited_in(key)
  local head = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if not head[1] then return nil end
  local priority = call('GETRANGE', TASK .. head[1], 2, 2):byte() or 3
  local stamp = tonumber(head[2]) + (priority == CRITICAL and CRITICAL_JUMP or priority * shard.step)
  return math.max(0, shard.ms - math.floor(stamp / 1000))
end

