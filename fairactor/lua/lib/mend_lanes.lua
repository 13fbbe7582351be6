-- Repairs what a shard knows of its lanes, and when delayed tasks are due: from the mailboxes, when all tasks stand in them.

-- @include lib/mend_tasks.lua

-- Notes for a lane and a tenant that there are tasks.
local function note_lane(rest, key)
  local lane, name = parse_mailbox(rest)
  spend(5)
  local first = lane and lane ~= '' and call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  if not first then return end
  call('ZADD', LANES_OF .. name, first, lane)
  call('ZADD', IN_LANE .. lane, 'NX', integer(shard.ms), name)
  call('HSETNX', LANES, lane, 0) -- what is true follows
end

-- Returns the function that removes from a sorted set or a hash what passes no test.
local function keep_if(command, test)
  return function(rest, flat, key)
    local gone = {}
    for i = 1, #flat, 2 do
      spend(1)
      if not test(flat[i], rest) then gone[#gone + 1] = flat[i] end
    end
    write_all(command, key, gone)
  end
end

local function has_tasks(name, lane) return lane ~= '' and call('EXISTS', mailbox(name, lane)) == 1 end
local keep_lanes_of = keep_if('ZREM', function(lane, name) return has_tasks(name, lane) end)
local keep_in_lane = keep_if('ZREM', has_tasks)
local keep_lanes = keep_if('HDEL', function(lane) return call('EXISTS', IN_LANE .. lane) == 1 end)
local keep_suspected = keep_if('ZREM', function(name) return call('EXISTS', SUSPECTS .. name) == 1 end)
local keep_scheduled = keep_if('ZREM', function(name) return call('EXISTS', DELAYED .. name) == 1 end)

local function repair_due_time(name, key)
  spend(3)
  local first = tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
  local at = tonumber(call('ZSCORE', SCHEDULED, name) or -1)
  if first and (at < first or at > math.max(first, shard.ms)) then call('ZADD', SCHEDULED, integer(first), name) end
end
