-- Shared by the scripts: a schedule's key, due time and last runs.

-- @include lib/base.lua

local MARGIN = 3000 -- ms after which others take over from a leader that died
local LINES = 10 -- the last runs that are kept

local function key_of(schedule) return OWN .. 'schedule:' .. schedule end

-- Sets when a schedule is due, and wakes a leader that would sleep longer.
local function put_due(schedule, at)
  call('ZADD', OWN .. 'due', integer(at), schedule)
  if call('ZRANGE', OWN .. 'due', 0, 0)[1] == schedule then
    local longest = math.max(at - shard.wall_ms, 0) + MARGIN
    if call('PTTL', OWN .. 'leader') > longest then call('PEXPIRE', OWN .. 'leader', integer(longest)) end
    call('PUBLISH', EVENTS, 'p' .. SELF)
  end
end

-- Adds a line about a run in front, and keeps the last ones.
local function add_line(lines, planned, outcome, task)
  lines = integer(planned) .. ' ' .. integer(shard.wall_ms) .. ' ' .. outcome .. ' ' .. (task or '') .. '\n' .. (lines or '')
  local _, number = lines:gsub('\n', '')
  while number > LINES do
    lines = lines:match('^(.*\n)[^\n]*\n$')
    number = number - 1
  end
  return lines
end
