-- Repairs what follows tasks with keys (see replace.lua).

-- @include lib/base.lua
-- @takes tasks, take_place from mend.lua
-- @takes HOLD, FOLLOWER from lib/plugins.lua

local function is_key_of(task, key)
  local prefix = #task.name .. ':' .. task.name
  return key:sub(1, #prefix) == prefix
end

local follows = {} -- task -> the task that it follows (replace.lua)

-- Finds the tasks that follow another one with their key, before all other places: the script that lets one go ends the
-- other one first. If that has happened, the task gets the key and, as it then has no place, one by its stamp.
local function repair_followers()
  local held_back, has_follower = call('HGETALL', HELD), {}
  for i = 1, #held_back, 2 do
    local id, readable_hold, _, _, _, holder, at = held_back[i], pcall(struct.unpack, HOLD, held_back[i + 1])
    local task, field = tasks[id], readable_hold and holder == FOLLOWER and held_back[i + 1]:sub(at)
    if field and task and task.state == LIVE then
      local key = field:sub(9)
      local fits = #field > 8 and is_key_of(task, key)
      local owner = fits and call('GET', KEY .. key)
      local owns = owner and owner ~= id and tasks[owner] and tasks[owner].state == LIVE and tasks[owner].name == task.name
      if owns and not has_follower[owner] and take_place(id, 'deferred') then
        follows[id], has_follower[owner] = owner, id
        call('HSET', KEYED, id, field)
        call('HSET', AGAIN, owner, id)
      elseif fits and not owns then
        call('SET', KEY .. key, id)
        call('HSET', KEYED, id, field)
      end
    end
    if field and not follows[id] then call('HDEL', HELD, id) end
  end
  for _, owner in ipairs(call('HKEYS', AGAIN)) do
    if not has_follower[owner] then call('HDEL', AGAIN, owner) end
  end
end
