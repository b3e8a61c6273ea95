BUGS=[]
