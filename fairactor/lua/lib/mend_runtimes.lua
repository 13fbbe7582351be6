-- Repairs what a shard knows of its runtimes, of what they run, and of who waits for tasks.

-- @include lib/mend_tasks.lua
-- @include lib/ending.lua

local BYTES = 500000 -- of outcomes that a step publishes, by about one

-- Returns those that hold no lease.
local function without_lease(runtimes)
  local gone = {}
  for i, lease in ipairs(read_all('ZMSCORE', LEASES, runtimes)) do
    if not lease then gone[#gone + 1] = runtimes[i] end
  end
  spend(#runtimes / 2)
  return gone
end

-- Returns the fields of a hash, or the members of a sorted set.
local function names_in(flat)
  local names = {}
  for i = 1, #flat, 2 do names[#names + 1] = flat[i] end
  return names
end

local function forget_runtimes(_, flat, key) write_all('HDEL', key, without_lease(names_in(flat))) end
local function forget_idle(_, key) write_all('SREM', key, without_lease(call('SMEMBERS', key))) end

local function forget_assignment(runtime, key)
  spend(2)
  if call('HEXISTS', HOMES, runtime) == 0 then call('UNLINK', key) end
end

local function describe_runtimes(_, flat)
  for _, runtime in ipairs(names_in(flat)) do
    spend(1)
    call('HSETNX', FLEET, runtime, '{}')
  end
end

local function repair_cancels(runtime, flat, key)
  for _, id in ipairs(names_in(flat)) do
    spend(2)
    if known('t', id) ~= CLAIMED .. runtime then call('HDEL', key, id) end
  end
end

local function repair_progress(_, flat)
  for _, id in ipairs(names_in(flat)) do
    spend(2)
    if (known('t', id) or ''):sub(1, 1) ~= CLAIMED then call('HDEL', PROGRESS, id) end
  end
end

-- Notifies those who wait for ended tasks, perhaps again.
local function notify(_, flat)
  local bytes = 0
  for i = 1, #flat, 2 do
    local id, task = flat[i], task_of(flat[i])
    spend(2)
    if not task then
      call('HDEL', WATCHERS, id)
    elseif task.state ~= LIVE then
      local record = call('GET', TASK .. id)
      if record then notify_watchers(id, record, flat[i + 1]) else call('HDEL', WATCHERS, id) end
      bytes = bytes + #(record or '')
      if bytes >= BYTES then
        spend(MOST)
        return true
      end
    end
  end
end

local function repair_dead_letters(_, flat)
  for i = 1, #flat, 2 do
    local id, task = flat[i], nil
    spend(2)
    if tonumber(flat[i + 1]) >= shard.now then
      task = task_of(id)
      if not task or task.state ~= DEAD_STATE then call('ZREM', DEAD, id) end
    end
  end
end
